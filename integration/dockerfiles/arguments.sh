# arguments: --build-arg GLOBAL=given --build-arg UNSET=set --build-arg HTTP_PROXY=http://127.0.0.1:9
