// A WebSocket to the server that is opened again when it breaks, and says how it stands.

const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const LATER_MS = 3000;     // where the server said why it closed the connection
const SILENCE_MS = 6000;   // without a word that is due

const GONE = "The server does not answer. Check that the demo is still running and that the network works; this page tries again by itself.";
const ENDED = "The demo has ended. Start it again where it ran; this page then continues by itself.";
const ADVICE = {
  full: "Close the page on another device, or wait; this page tries again by itself.",
  frame: "Choose another camera if this happens again; this page tries again by itself.",
};

export class Connection {
  // path: "watch" or "camera". onstate(state, notice): "live", "reconnecting" or "ended", and what to tell the user.
  // onmessage(message): "about" and "answer" messages, and a Blob for binary ones.
  constructor(path, onstate, onmessage) {
    this.url = new URL(path, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.url.hash = "";
    this.onstate = onstate;
    this.onmessage = onmessage;
    this.isDue = path === "watch";  // whether the server has to say something; /camera only answers
    this.reason = "";               // why the server closed the connection, if it said so
    this.attempts = 0;
    this.watchdog = setInterval(() => this.checkSilence(), 1000);
    this.open();
  }

  open() {
    const socket = this.socket = new WebSocket(this.url);
    this.heard = performance.now();
    socket.onmessage = (event) => { if (socket === this.socket) this.receive(event.data); };
    socket.onclose = () => { if (socket === this.socket) this.retry(); };
  }

  receive(data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      this.onmessage(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.kind === "ended") {
      this.reason = "ended";
      this.onstate("ended", ENDED);
    } else if (message.kind === "error") {
      this.reason = message.reason;
      this.onstate("reconnecting", `${message.text} ${ADVICE[message.reason]}`);
    } else if (message.kind === "about") {
      this.onmessage(message);
    } else {
      this.reason = "";
      this.attempts = 0;
      if (message.text) this.onstate("reconnecting", `${message.text[0].toUpperCase()}${message.text.slice(1)}.`);
      else this.onstate("live", "");
      if (message.kind === "answer") this.onmessage(message);
    }
  }

  send(data) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  retry() {
    this.socket = null;
    if (!this.reason) this.onstate("reconnecting", this.attempts ? GONE : "");
    const wait = this.reason ? LATER_MS : RETRY_MS[Math.min(this.attempts, RETRY_MS.length - 1)];
    this.attempts += 1;
    this.timer = setTimeout(() => this.open(), wait);
  }

  checkSilence() {  // a broken network may take minutes to say that it is closed
    const isDue = this.isDue || this.socket?.readyState === WebSocket.CONNECTING;
    if (this.socket && isDue && performance.now() - this.heard > SILENCE_MS) {
      this.socket.onclose = null;
      this.socket.close();
      this.retry();
    }
  }

  close() {
    clearInterval(this.watchdog);
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }
}
