// What the shop passes to stripe.paymentIntents.create, or as payment_intent_data to stripe.checkout.sessions.create:
//
//   stripe.paymentIntents.create({ amount: 12900, currency: "usd", ...ticketMetadata({ cityId: "dallas-2026-03", tier: "ga" }) });
//
// Names only: no customer, no note. What is no name is refused here, because sixfbd would leave it out in silence.
"use strict";

const NAME = /^[\p{L}\p{N}_.-]{1,100}$/u;

function ticketMetadata({ cityId, tier }) {
  for (const [key, value] of Object.entries({ cityId, tier })) {
    if (typeof value !== "string" || !NAME.test(value)) throw new TypeError(`${key} is no name: letters, digits, _ . -`);
  }
  return { metadata: { cityId, tier } };
}

module.exports = { ticketMetadata };
