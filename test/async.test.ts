import { describe, expect, test } from "bun:test";
import { RegistryError, type RegistryErrorOptions } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { reasonOf } from "./helpers/client.ts";
import { type Clock, parseRetryAfter, retry } from "../lib/async.ts";

type Worth = Pick<RegistryErrorOptions, "retry" | "retryAfter">;

async function run(
  failures: readonly (Worth | Error)[],
): Promise<{ attempts: number; waits: number[]; error: string }> {
  const waits: number[] = [];
  const clock: Clock = { now: () => 0, sleep: async (ms) => void waits.push(ms), random: () => 0.5 };
  let attempts = 0;
  let error = "";
  await retry(
    async () => {
      const failure = failures[attempts++];
      if (failure instanceof Error) throw failure;
      if (failure !== undefined) throw new RegistryError("no", { method: "GET", url: "u", ...failure });
    },
    { clock, log: silentLog, signal: new AbortController().signal },
  ).catch((reason: unknown) => (error = String(reason)));
  return { attempts, waits, error };
}

describe("retry()", () => {
  const often: Worth = { retry: "often" };
  const nine = (failure: Worth): Worth[] => Array.from({ length: 9 }, () => failure);
  const once: Worth = { retry: "once" };
  test.each<[string, (Worth | Error)[], number, number[], string]>([
    ["a success is not repeated", [], 1, [], ""],
    ["waits grow", [often, often, often, often], 5, [500, 1000, 2000, 4000], ""],
    ["five attempts are all", nine(often), 5, [500, 1000, 2000, 4000], "RegistryError: no (after 5 attempts)"],
    ["what is final is final", [{ retry: "never" }, often], 1, [], "RegistryError: no"],
    ["once is once", [once, once, once], 2, [500], "RegistryError: no (after 2 attempts)"],
    ["other errors are final", [new TypeError("bug")], 1, [], "TypeError: bug"],
    ["the server says how long", [{ retry: "often", retryAfter: 7000 }], 2, [7000], ""],
    ["but not for ever", [{ retry: "often", retryAfter: 1e9 }], 2, [60_000], ""],
    [
      "all waits together end",
      nine({ retry: "often", retryAfter: 1e9 }),
      4,
      [60_000, 60_000, 60_000],
      "RegistryError: no (after 4 attempts)",
    ],
  ])("%s", async (_, failures, attempts, waits, error) => {
    expect(await run(failures)).toEqual({ attempts, waits, error });
  });

  test("stops waiting when the run is ended", async () => {
    const controller = new AbortController();
    const clock: Clock = {
      now: () => 0,
      sleep: async (_, signal) => {
        controller.abort(new Error("interrupted"));
        signal.throwIfAborted();
      },
      random: () => 0,
    };
    const work = async (): Promise<void> => {
      throw new RegistryError("no", { method: "GET", url: "u", retry: "often" });
    };
    const reason = await reasonOf(retry(work, { clock, log: silentLog, signal: controller.signal }));
    expect(reason).toEqual(new Error("interrupted"));
  });
});

describe("parseRetryAfter()", () => {
  const now = Date.parse("2026-11-22T10:00:00Z");
  test.each([
    ["5", 5000],
    ["0", 0],
    ["Sun, 22 Nov 2026 10:00:30 GMT", 30_000],
    ["Sun, 22 Nov 2026 09:00:00 GMT", 0],
    ["soon", undefined],
    ["-1", undefined],
    [null, undefined],
  ])("%p: %p", (header, wanted) => {
    expect(parseRetryAfter(header, now)).toBe(wanted);
  });
});
