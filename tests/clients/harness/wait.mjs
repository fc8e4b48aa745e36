// Waiting for events with a deadline, and seeded randomness.
//
// Promise: nothing here waits for a fixed time as a means of synchronisation. `until` looks again
// whenever one of the things it watches emits "change", and fails loudly at its deadline.

import { randomInt } from "node:crypto";

export const DEADLINE_MS = 15_000;

/**
 * Resolves with the first truthy value of `condition`, which may be a promise.
 * Each watched thing is an EventEmitter that emits "change" and has `describe()`.
 */
export function until(what, watched, condition, deadlineMs = DEADLINE_MS) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer);
      for (const thing of watched) thing.off("change", look);
      settle(value);
    };
    let looking = false;
    let changed = false;
    const look = async () => {
      changed = true;
      if (looking) return;
      looking = true;
      try {
        while (changed) {
          changed = false;
          let value = condition();
          if (value instanceof Promise) value = await value;
          if (value) finish(resolve, value);
        }
      } catch (error) {
        finish(reject, error);
      }
      looking = false;
    };
    const timer = setTimeout(() => {
      const seen = watched.map((thing) => `  ${thing.describe()}`).join("\n");
      finish(reject, new Error(`not within ${deadlineMs} ms: ${what}\n${seen}`));
    }, deadlineMs);
    for (const thing of watched) thing.on("change", look);
    look();
  });
}

/** Somebody's pause between two keys. For pacing only. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** One seed per process; SYNCLINE_TEST_SEED repeats a run's choices. */
export const seed = Number(process.env.SYNCLINE_TEST_SEED ?? randomInt(2 ** 31));

/** mulberry32: small, and the same numbers for the same seed everywhere. */
export function randomFrom(start) {
  let state = start >>> 0;
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  /** A whole number from `low` up to and including `high`. */
  return (low, high) => low + Math.floor(fraction() * (high - low + 1));
}
