import { describe, expect, test } from "bun:test";
import { DEADLINES, IdleTimeout, StallGuard, StreamBody, Upload } from "../lib/http-transfer.ts";
import { type Digest, describe as describeBytes } from "../lib/oci.ts";
import { readAll } from "./helpers/registry-client.ts";

const pieces = [1, 2, 3].map((value) => new Uint8Array(10).fill(value));
const whole = new Uint8Array(Buffer.concat(pieces));
const { digest, size } = describeBytes("", whole);
const never = new AbortController().signal;

/** Gives the pieces and then does `last`. */
async function* make(last: () => Promise<void> | void = () => undefined): AsyncGenerator<Uint8Array> {
  yield* pieces;
  await last();
}

describe("Upload", () => {
  test("starts no deadline when its body is read after the end of the request", async () => {
    const guard = new StallGuard([]);
    const chunk = Promise.withResolvers<Uint8Array>();
    const body = { size: undefined, open: () => once(chunk.promise) };
    const upload = new Upload(body, { guard, deadlines: { ...DEADLINES, stall: 1, commit: 1 } });
    const sent = upload.body();
    if (sent instanceof Uint8Array) throw new TypeError("the body is not a stream");
    const reading = readAll(sent);
    guard.end();
    chunk.resolve(whole);
    expect(await reading).toEqual(whole);
    await Bun.sleep(20);
    expect({ stalled: guard.stalled, aborted: guard.signal.aborted }).toEqual({ stalled: undefined, aborted: false });
  });
});

async function* once(chunk: Promise<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield await chunk;
}

describe("StreamBody", () => {
  test("gives all bytes, those that were waited for too, and knows that they are right", async () => {
    const body = new StreamBody(() => make());
    expect(await body.begin(15)).toBe(true);
    expect(await readAll(body.open(never))).toEqual(whole);
    expect(body.isWhole({ digest, size })).toBe(true);
  });

  test.each<[string, number, Digest]>([
    ["size", size + 1, digest],
    ["digest", size, `sha256:${"0".repeat(64)}`],
  ])("is not whole with another %s", async (_, otherSize, otherDigest) => {
    const body = new StreamBody(() => make());
    await readAll(body.open(never));
    expect(body.isWhole({ digest: otherDigest, size: otherSize })).toBe(false);
  });

  test("says when there is too little to begin with", async () => {
    expect(await new StreamBody(() => make()).begin(30)).toBe(true);
    expect(await new StreamBody(() => make()).begin(31)).toBe(false);
  });

  test("is empty the second time, and not whole any more", async () => {
    const body = new StreamBody(() => make());
    await readAll(body.open(never));
    expect(await readAll(body.open(never))).toEqual(new Uint8Array(0));
    expect(body.isWhole({ digest, size })).toBe(false);
  });

  test("ends early where its source fails", async () => {
    const body = new StreamBody(() =>
      make(() => {
        throw new Error("the disk is gone");
      }),
    );
    expect(await readAll(body.open(never))).toEqual(whole);
    expect(body.isWhole({ digest, size })).toBe(false);
  });

  test("ends early where it cannot even begin", async () => {
    const body = new StreamBody(() => {
      throw new Error("no such file");
    });
    expect(await body.begin(1)).toBe(false);
    expect(await readAll(body.open(never))).toEqual(new Uint8Array(0));
  });

  test.each<[string, (body: StreamBody, controller: AbortController) => void]>([
    ["when it is stopped", (body) => body.stop()],
    ["when its reader's signal says so", (_, controller) => controller.abort()],
  ])("does not wait for a source that hangs %s, and lets it know", async (_, end) => {
    const told = Promise.withResolvers<void>();
    const controller = new AbortController();
    const body = new StreamBody((signal) => {
      signal.addEventListener("abort", () => told.resolve());
      return make(() => new Promise<void>(() => undefined));
    });
    const bytes: Uint8Array[] = [];
    for await (const chunk of body.open(controller.signal)) {
      // Still in time to be asked for the end, which never comes.
      if (bytes.push(chunk) === 3) queueMicrotask(() => end(body, controller));
    }
    await told.promise;
    expect({ length: bytes.length, whole: body.isWhole({ digest, size }) }).toEqual({ length: 3, whole: false });
  });

  test("holds nothing of what was taken", async () => {
    const taken: WeakRef<Uint8Array>[] = [];
    const body = new StreamBody(async function* () {
      for (let i = 0; i < 50; i++) yield new Uint8Array(1024 * 1024);
    });
    for await (const chunk of body.open(never)) taken.push(new WeakRef(chunk));
    // A new turn of the event loop: what a turn has looked at through a WeakRef stays until its end.
    await new Promise((resolve) => setImmediate(resolve));
    Bun.gc(true);
    expect(taken.filter((ref) => ref.deref() !== undefined).length).toBeLessThan(5);
    expect(body.isWhole({ size: 0, digest })).toBe(false);
  });

  test("asks for no more than was taken", async () => {
    let given = 0;
    const body = new StreamBody(async function* () {
      for (const piece of pieces) {
        given++;
        yield piece;
      }
    });
    const reader = body.open(never);
    await reader.next();
    expect(given).toBe(1);
    await reader.return();
  });
});

describe("IdleTimeout", () => {
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
});
