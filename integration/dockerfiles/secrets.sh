# doors: buildkit
# arguments: --secret id=token,src=token.txt
printf abc >token.txt
