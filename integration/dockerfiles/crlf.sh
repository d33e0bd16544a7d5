printf 'FROM busybox\r\n# comment\r\nENV A=b\r\nRUN echo one && \\\r\n    echo two >/two\r\n\r\nCOPY f /f\r\nCMD ["sh"]\r\n' >Dockerfile
printf 'x\r\n' >f
