import { describe, expect, test } from "bun:test";
import { KoError, RegistryError, type RegistryErrorOptions } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { rejectionOf } from "./helpers/failures.ts";
import {
  type Clock,
  createLimit,
  inBackground,
  once,
  parseRetryAfter,
  readStream,
  retry,
  systemClock,
  until,
} from "../lib/async.ts";

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
  const single: Worth = { retry: "once" };
  test.each<[string, (Worth | Error)[], number, number[], string]>([
    ["a success is not repeated", [], 1, [], ""],
    ["waits grow", [often, often, often, often], 5, [500, 1000, 2000, 4000], ""],
    ["five attempts are all", nine(often), 5, [500, 1000, 2000, 4000], "RegistryError: no (after 5 attempts)"],
    ["what is final is final", [{ retry: "never" }, often], 1, [], "RegistryError: no"],
    ["once is once", [single, single, single], 2, [500], "RegistryError: no (after 2 attempts)"],
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
    const reason = await rejectionOf(retry(work, { clock, log: silentLog, signal: controller.signal }));
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

describe("createLimit()", () => {
  test("runs at most so many at once, in the order they came", async () => {
    const limit = createLimit(2);
    const events: string[] = [];
    const ends: (() => void)[] = [];
    const work = ["a", "b", "c", "d"].map((name) =>
      limit(async () => {
        events.push(`+${name}`);
        await new Promise<void>((resolve) => ends.push(resolve));
        events.push(`-${name}`);
        return name;
      }),
    );
    const settle = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await Promise.resolve();
    };
    await settle();
    expect(events).toEqual(["+a", "+b"]);
    ends[1]?.();
    await settle();
    expect(events).toEqual(["+a", "+b", "-b", "+c"]);
    ends[0]?.();
    ends[2]?.();
    await settle();
    expect(events.slice(4).sort()).toEqual(["+d", "-a", "-c"]);
    ends[3]?.();
    expect(await Promise.all(work)).toEqual(["a", "b", "c", "d"]);
  });

  test("goes on after a failure", async () => {
    const limit = createLimit(1);
    const failing = limit(() => Promise.reject(new KoError("no")));
    const next = limit(async () => "next");
    expect(await rejectionOf(failing)).toEqual(new KoError("no"));
    expect(await next).toBe("next");
  });
});

describe("systemClock", () => {
  test("sleeps, unless the signal aborts first", async () => {
    const { signal } = new AbortController();
    await systemClock.sleep(1, signal);
    const reason = new Error("told to end");
    expect(await rejectionOf(systemClock.sleep(60_000, AbortSignal.abort(reason)))).toBe(reason);
    const controller = new AbortController();
    const sleeping = systemClock.sleep(60_000, controller.signal);
    controller.abort(reason);
    expect(await rejectionOf(sleeping)).toBe(reason);
  });
});

describe("once()", () => {
  test("starts the work of a key one time", async () => {
    const known = new Map<string, Promise<number>>();
    let started = 0;
    const work = (): Promise<number> => Promise.resolve(++started);
    expect([await once(known, "a", work), await once(known, "a", work), await once(known, "b", work)]).toEqual([
      1, 1, 2,
    ]);
  });
});

describe("until()", () => {
  test("returns the result, or throws the reason of a signal that aborts first", async () => {
    const controller = new AbortController();
    expect(await until(Promise.resolve(1), controller.signal)).toBe(1);
    const waiting = until(new Promise<never>(() => {}), controller.signal);
    controller.abort(new Error("told to end"));
    expect(await rejectionOf(waiting)).toEqual(new Error("told to end"));
    expect(await rejectionOf(until(new Promise<never>(() => {}), controller.signal))).toEqual(new Error("told to end"));
  });
});

describe("readStream()", () => {
  /** A stream of chunks of three bytes, which does not end. */
  function endless(): { readonly stream: ReadableStream<Uint8Array>; readonly cancelled: Promise<void> } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const chunk = new TextEncoder().encode("abc");
    const stream = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(chunk),
      cancel: () => resolve(),
    });
    return { stream, cancelled: promise };
  }

  test("reads a stream of up to as many bytes as are allowed", async () => {
    const { signal } = new AbortController();
    const read = async (maxBytes: number): Promise<Uint8Array | undefined> =>
      readStream(new Blob(["abcdef"]).stream(), { maxBytes, signal });
    expect(await read(6)).toEqual(new TextEncoder().encode("abcdef"));
    expect(await read(5)).toBeUndefined();
  });

  test("cancels a stream that is too long", async () => {
    const { cancelled, stream } = endless();
    expect(await readStream(stream, { maxBytes: 100, signal: new AbortController().signal })).toBeUndefined();
    await cancelled;
  });

  test("stops when the signal aborts, while it waits for a chunk", async () => {
    const controller = new AbortController();
    const waiting = readStream(new ReadableStream({}), { maxBytes: 100, signal: controller.signal });
    controller.abort(new Error("told to end"));
    expect(await rejectionOf(waiting)).toEqual(new Error("told to end"));
  });

  test("throws the error of the stream", async () => {
    const broken = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error("broken pipe")) });
    const reading = readStream(broken, { maxBytes: 100, signal: new AbortController().signal });
    expect(await rejectionOf(reading)).toEqual(new Error("broken pipe"));
  });
});

describe("inBackground()", () => {
  test("hands on the failure to the caller that awaits it", async () => {
    expect(await rejectionOf(inBackground(Promise.reject(new Error("no"))))).toEqual(new Error("no"));
  });
});
