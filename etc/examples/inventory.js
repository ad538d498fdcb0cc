// The route that [checks.inventory] of shop.toml asks, for Express and for Next.js (pages/api):
//
//   app.get("/internal/inventory", inventoryRoute(loadCities, process.env.INVENTORY_AUTHORIZATION));
//   export default inventoryRoute(loadCities, process.env.INVENTORY_AUTHORIZATION);
//
// loadCities returns, or promises, [{cityId, startsAt, tiers: {ga: {limit, sold}, vip: {limit, sold}}}].
// INVENTORY_AUTHORIZATION is the whole header, such as "Bearer " and 32 random characters; the daemon has the same.
"use strict";

const { createHash, timingSafeEqual } = require("node:crypto");

const digest = (text) => createHash("sha256").update(text).digest();

function statusOf(tiers) {
  const each = (value) => Object.fromEntries(Object.entries(tiers).map(([tier, counts]) => [tier, value(counts)]));
  return {
    publicAvailable: each(({ limit, sold }) => Math.max(0, limit - sold)),
    sold: each(({ sold }) => sold),
    publicLimits: each(({ limit }) => limit),
  };
}

function inventoryRoute(loadCities, authorization) {
  if (!authorization) throw new Error("INVENTORY_AUTHORIZATION is not set");
  return async (request, response) => {
    const answer = (status, body) => {
      response.statusCode = status;
      response.setHeader("Content-Type", "application/json");
      response.setHeader("Cache-Control", "no-store");
      response.end(JSON.stringify(body));
    };
    if (!timingSafeEqual(digest(request.headers.authorization ?? ""), digest(authorization))) {
      return answer(401, { error: "not authorized" });
    }
    try {
      const cities = await loadCities();
      answer(200, { cities: cities.map(({ tiers, ...city }) => ({ ...city, status: statusOf(tiers) })) });
    } catch {
      answer(503, { error: "the stock cannot be read" }); // never an empty stock: it would look sold out
    }
  };
}

module.exports = { inventoryRoute };
