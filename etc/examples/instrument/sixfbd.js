// Tells sixfbd of a shop's requests, sales and Node.js heap. Node.js 18 or newer, nothing to install.
//
// Express:                     const sixfbd = require("./sixfbd").instrument();
//                              app.use(sixfbd.middleware);                        // before everything else
// Next.js, pages/api:          export default sixfbd.handler(handler);
// Next.js, app/.../route.js:   export const GET = sixfbd.route(async (request) => Response.json({}));
// a sale, once it is certain:  sixfbd.sale({ orderId, cityId, tier, quantity, amount, currency });
// any other event:             sixfbd.event("checkout_started", { ... });
// at the end of the process:   await sixfbd.close();
//
// SIXFBD_URL is where the daemon listens (http://127.0.0.1:9632 unless set), SIXFBD_TOKEN a token with the scope `events`.
// Nothing here waits for the daemon, and nothing throws. Events wait in memory, at most `most` of them; what finds no
// room is counted, and the daemon told of it once it is back (workshop_events_dropped_total).
// Of who asks nothing is sent: no address, no user agent, no query.
"use strict";

const { randomUUID } = require("node:crypto");

const EVERY_MS = 1000;
const BATCH = 500;
const BATCH_BYTES = 256 * 1024;
const LONGEST_EVENT = 16 * 1024;
const TIMEOUT_MS = 5000;
const LONGEST_WAIT_MS = 30_000;
const FIGURES_EVERY_MS = 30_000;
const PERMANENT = new Set([400, 413, 415, 422]); // sent again it would be refused again

// What cannot be written as JSON is "".
function written(type, data, id) {
  try {
    return JSON.stringify({ id, type, timestamp: Date.now() / 1000, data });
  } catch {
    return "";
  }
}

function heap() {
  const { heapUsed, heapTotal } = process.memoryUsage();
  return written("node_process", { heapUsed, heapTotal, uptime: process.uptime() }, randomUUID());
}

class Sixfbd {
  constructor({ url, token, most, fetch }) {
    this.most = most;
    this.dropped = 0;
    this.middleware = this.middleware.bind(this);
    this._endpoint = new URL("/api/events", url).href;
    this._headers = { "Content-Type": "application/x-ndjson", Authorization: `Bearer ${token}` };
    this._fetch = fetch;
    this._waiting = [];
    this._told = 0; // of those that were dropped
    this._telling = false;
    this._figuresAt = 0;
    this._notBefore = 0;
    this._waitMs = EVERY_MS;
    this._sending = null;
    this._timer = setInterval(() => this.flush(), EVERY_MS).unref();
  }

  // Requests find no room before anything else does: of a thousand requests one more tells little, a sale is money.
  event(type, data, id = randomUUID()) {
    const room = type === "request" ? this.most : 2 * this.most;
    const text = written(type, data, id);
    if (this._waiting.length >= room || text.length > LONGEST_EVENT || !text) this.dropped += 1;
    else this._waiting.push(text);
  }

  // By its order a sale is one event, however often it is told.
  sale(sale) {
    this.event("ticket_sale", sale, `sale/${sale?.orderId}/${sale?.cityId}/${sale?.tier}`.slice(0, 200));
  }

  request(method, target, statusCode, begun) {
    const path = String(target).replace(/^[a-z]+:\/\/[^/]*/, "").split(/[?#]/, 1)[0].slice(0, 2000) || "/";
    this.event("request", { path, method: String(method), statusCode, duration: performance.now() - begun });
  }

  middleware(request, response, next) {
    const begun = performance.now();
    const target = request.originalUrl ?? request.url;
    response.once("close", () => {
      // 499, as nginx says: who asked had left before there was an answer.
      this.request(request.method, target, response.writableFinished ? response.statusCode : 499, begun);
    });
    next();
  }

  handler(handle) {
    return (request, response) => {
      this.middleware(request, response, () => {});
      return handle(request, response);
    };
  }

  route(handle) {
    return async (request, ...rest) => {
      const begun = performance.now();
      let status = 500;
      try {
        const response = await handle(request, ...rest);
        status = response?.status ?? 200;
        return response;
      } finally {
        this.request(request.method, request.url, status, begun);
      }
    };
  }

  // Sends what waits, unless the daemon was not there a moment ago. Never throws.
  flush(now = Date.now()) {
    if (!this._sending && now >= this._notBefore) {
      this._sending = this._send(now).finally(() => (this._sending = null));
    }
    return this._sending ?? Promise.resolve();
  }

  async _send(now) {
    if (this.dropped > this._told && !this._telling) {
      this._waiting.push(written("events_dropped", { count: this.dropped - this._told }, randomUUID()));
      this._told = this.dropped;
      this._telling = true; // sent again it is the same event
    }
    const batch = this._batch();
    const figures = now - this._figuresAt >= FIGURES_EVERY_MS ? [heap()] : [];
    if (!batch.length && !figures.length) return;
    if (await this._post([...batch, ...figures])) {
      this._waiting.splice(0, batch.length);
      this._telling = false;
      if (figures.length) this._figuresAt = now;
      if (this._waiting.length) setTimeout(() => this.flush(), 0).unref();
    }
  }

  _batch() {
    let bytes = 0;
    const end = this._waiting.findIndex((text, place) => place === BATCH || (bytes += text.length) > BATCH_BYTES);
    return this._waiting.slice(0, end === -1 ? this._waiting.length : end);
  }

  // Returns whether the daemon has these events, or never will have them.
  async _post(events) {
    try {
      const body = events.join("\n");
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const answer = await this._fetch(this._endpoint, { method: "POST", headers: this._headers, body, signal });
      const text = await answer.text();
      if (!answer.ok && !PERMANENT.has(answer.status)) throw new Error(`status ${answer.status}`);
      this.dropped += answer.ok ? JSON.parse(text).data.refused.length : events.length;
      this._waitMs = EVERY_MS;
      return true;
    } catch {
      this._notBefore = Date.now() + this._waitMs;
      this._waitMs = Math.min(2 * this._waitMs, LONGEST_WAIT_MS);
      return false;
    }
  }

  // Sends what waits, once; at most TIMEOUT_MS.
  async close() {
    clearInterval(this._timer);
    await this._sending;
    this._notBefore = 0;
    await this.flush();
  }
}

function instrument({
  url = process.env.SIXFBD_URL || "http://127.0.0.1:9632",
  token = process.env.SIXFBD_TOKEN,
  most = 10_000,
  fetch = globalThis.fetch,
} = {}) {
  // `next build` loads every route, on a machine that need not know the daemon: there nothing is to be told.
  if (process.env.NEXT_PHASE === "phase-production-build") fetch = () => Promise.reject(new Error("a build"));
  else if (!token) throw new Error("SIXFBD_TOKEN is not set");
  return new Sixfbd({ url, token, most, fetch });
}

module.exports = { instrument };
