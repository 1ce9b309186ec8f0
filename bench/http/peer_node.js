// The bench many.lua for node's http module with an Agent that keeps connections.
//
//   node peer_node.js URL N C BYTES
'use strict';
const http = require('http');

const [url, ...numbers] = process.argv.slice(2);
const [n, c, bytes] = numbers.map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: c });
let left = n;
let running = c;

function get(done) {
  http.get(url, { agent }, (response) => {
    const chunks = [];
    response.on('data', (chunk) => chunks.push(chunk));
    response.on('end', () => {
      if (response.statusCode !== 200 || Buffer.concat(chunks).length !== bytes) {
        throw new Error('a wrong answer');
      }
      done();
    });
  });
}

get(() => {
  const cpu = process.cpuUsage();
  function worker() {
    if (left-- > 0) return get(worker);
    if (--running > 0) return undefined;
    const { user, system } = process.cpuUsage(cpu);
    console.log(`bench=http_node n=${n} c=${c} cpu_us=${((user + system) / n).toFixed(2)}`);
    return agent.destroy();
  }
  for (let i = 0; i < c; i++) worker();
});
