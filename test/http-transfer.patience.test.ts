import { expect, test } from "bun:test";
import { Patience } from "../lib/http-transfer.ts";

test("asks again and again while there are answers, then gives up at the limit", async () => {
  let asked = 0;
  const over = Promise.withResolvers<string>();
  const patience = new Patience({
    silence: 10,
    limit: 60,
    ask: async () => void asked++,
    giveUp: over.resolve,
  });
  expect(await over.promise).toMatch(/^it has been silent for \d+ s$/);
  patience.end();
  expect(asked).toBeGreaterThan(1);
});

test("gives up at once when there is no answer", async () => {
  const over = Promise.withResolvers<string>();
  const ask = (): Promise<never> => Promise.reject(new Error("no"));
  const patience = new Patience({ silence: 10, limit: 100_000, ask, giveUp: over.resolve });
  expect(await over.promise).toMatch(/^it has been silent for \d+ s and answers no ping$/);
  patience.end();
});

test("forgives a missing answer if something moved meanwhile", async () => {
  let asked = 0;
  const second = Promise.withResolvers<string>();
  const patience: Patience = new Patience({
    silence: 10,
    limit: 100_000,
    ask: async () => {
      asked++;
      if (asked === 1) patience.moved();
      throw new Error("no");
    },
    giveUp: second.resolve,
  });
  await second.promise;
  patience.end();
  expect(asked).toBe(2);
});

test("does nothing after its end", async () => {
  const ended = Promise.withResolvers<void>();
  const verdicts: string[] = [];
  const patience: Patience = new Patience({
    silence: 5,
    limit: 100_000,
    ask: async () => {
      patience.end();
      ended.resolve();
      throw new Error("no");
    },
    giveUp: (why) => verdicts.push(why),
  });
  await ended.promise;
  await new Promise((resolve) => setImmediate(resolve));
  expect(verdicts).toEqual([]);
});
