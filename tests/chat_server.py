"""A server of chat completions of the tests' own, which also fails in the ways that servers do."""

import contextlib
import http.server
import inspect
import json
import threading


class Server:
    """Answers chat completions by `answers`, one per request: a body, a status, or the name of a misbehaviour."""

    def __init__(self):
        self.answers, self.requests, self.headers, self.at_once, self.most = [], [], [], 0, 0
        self.lock, server = threading.Lock(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.requests.append(body)
                    server.headers.append(dict(self.headers))
                    server.at_once += 1
                    server.most = max(server.most, server.at_once)
                    answer = server.answers.pop(0) if server.answers else server.reply(body)
                if callable(answer):
                    answer = answer(body)
                with server.lock:  # before the answer goes out: who has read it may ask again at once
                    server.at_once -= 1
                server.send(self, answer)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, body, text="It is 4.\nThe answer is 4.", reason="stop"):
        choices = [{"message": {"content": text}, "finish_reason": reason} for _ in range(body["n"])]
        return {"choices": choices, "usage": {"prompt_tokens": 30, "completion_tokens": 7 * body["n"]}}

    def send(self, handler, answer):
        status, text, headers = 200, "", {}
        if inspect.isgenerator(answer):  # all that goes over the wire, piece by piece
            with contextlib.suppress(OSError):
                for piece in answer:
                    handler.wfile.write(piece)
                    handler.wfile.flush()
            handler.close_connection = True
            return
        if isinstance(answer, dict):
            text = json.dumps(answer)
        elif answer == "malformed":
            text = '{"choices": ['
        elif answer == "redirect":
            status, headers = 302, {"Location": f"{self.url}/elsewhere"}
        elif isinstance(answer, tuple):
            status, text, headers = answer
        length = len(text) + (100 if answer == "cut" else 0)
        handler.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())
        if answer == "cut":
            handler.wfile.write(b'{"cho')
            handler.wfile.flush()
            handler.connection.close()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
