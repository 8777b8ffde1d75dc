// usage: OPENCLAW_CALL_TOKEN=TOKEN node --eval SCRIPT -- PORT METHOD PARAMS
//
// Calls one method of the gateway on this host's loopback address, with every scope that its operator has, and prints the answer.
const [port, method, params] = process.argv.slice(1);
const token = process.env.OPENCLAW_CALL_TOKEN;
const socket = new WebSocket(`ws://127.0.0.1:${port}`);
const send = (id, method, params) => socket.send(JSON.stringify({ type: 'req', id, method, params }));
const end = (code, text) => {
  (code ? console.error : console.log)(JSON.stringify(text));
  process.exit(code);
};
const scopes = ['read', 'write', 'admin', 'approvals', 'pairing'].map((scope) => `operator.${scope}`);
const client = { id: 'gateway-client', mode: 'backend', platform: process.platform, version: '1' };
socket.onerror = () => end(1, 'no connection');
socket.onclose = (close) => end(1, `closed: ${close.code} ${close.reason}`);
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.event === 'connect.challenge') {
    send('connect', 'connect', { minProtocol: 3, maxProtocol: 4, client, role: 'operator', scopes, auth: { token } });
  } else if (frame.type === 'res' && !frame.ok) {
    end(1, frame.error);
  } else if (frame.id === 'connect') {
    send('call', method, JSON.parse(params));
  } else if (frame.id === 'call') {
    end(0, frame.payload);
  }
};
