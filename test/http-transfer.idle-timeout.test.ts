import { expect, test } from "bun:test";
import { IdleTimeout } from "../lib/http-transfer.ts";

test("asks again and again while there are answers, then gives up at the limit", async () => {
  let pings = 0;
  const over = Promise.withResolvers<string>();
  const idleTimeout = new IdleTimeout({
    silence: 10,
    limit: 60,
    ping: async () => void pings++,
    giveUp: over.resolve,
  });
  expect(await over.promise).toMatch(/^it has been silent for \d+ s$/);
  idleTimeout.end();
  expect(pings).toBeGreaterThan(1);
});

test("gives up at once when there is no answer", async () => {
  const over = Promise.withResolvers<string>();
  const ping = (): Promise<never> => Promise.reject(new Error("no"));
  const idleTimeout = new IdleTimeout({ silence: 10, limit: 100_000, ping, giveUp: over.resolve });
  expect(await over.promise).toMatch(/^it has been silent for \d+ s and answers no ping$/);
  idleTimeout.end();
});

test("forgives a missing answer if something moved meanwhile", async () => {
  let pings = 0;
  const second = Promise.withResolvers<string>();
  const idleTimeout: IdleTimeout = new IdleTimeout({
    silence: 10,
    limit: 100_000,
    ping: async () => {
      pings++;
      if (pings === 1) idleTimeout.reset();
      throw new Error("no");
    },
    giveUp: second.resolve,
  });
  await second.promise;
  idleTimeout.end();
  expect(pings).toBe(2);
});

test("does nothing after its end", async () => {
  const ended = Promise.withResolvers<void>();
  const verdicts: string[] = [];
  const idleTimeout: IdleTimeout = new IdleTimeout({
    silence: 5,
    limit: 100_000,
    ping: async () => {
      idleTimeout.end();
      ended.resolve();
      throw new Error("no");
    },
    giveUp: (why) => verdicts.push(why),
  });
  await ended.promise;
  await new Promise((resolve) => setImmediate(resolve));
  expect(verdicts).toEqual([]);
});
