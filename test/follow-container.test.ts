import { describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import { ContainerLog, stateOf } from "../lib/follow-container.ts";
import { LogPrinter } from "../lib/follow-printer.ts";
import type { StreamAnswer } from "../lib/rollout-api.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const RUNNING = { hasLog: true, isRunning: true, version: "1", isOver: false, isGone: false };

/** A container whose log the fake API serves. */
function logOf(
  serve: (query: URLSearchParams) => { readonly status: number; readonly chunks: Iterable<string> },
  { show }: { readonly show: (text: string) => Promise<void> },
): { readonly log: ContainerLog; readonly complaints: readonly string[]; readonly end: () => Promise<void> } {
  const ending = new AbortController();
  const stream = async (path: string, signal: AbortSignal): Promise<StreamAnswer> => {
    const { chunks, status } = serve(new URL(path, "http://x").searchParams);
    async function* body(): AsyncGenerator<Uint8Array, void, void> {
      for (const chunk of chunks) {
        await setImmediate();
        signal.throwIfAborted();
        yield new TextEncoder().encode(chunk);
      }
    }
    return { status, headers: new Headers(), body: body() };
  };
  const complaints: string[] = [];
  const printer = new LogPrinter({ show, signal: ending.signal });
  const log = new ContainerLog(RUNNING, {
    openApi: async () => ({ stream }),
    place: { namespace: "default", pod: "p", container: "c" },
    since: undefined,
    sink: {
      write: (lines) => printer.write("web │ ", lines),
      complain: (why) => void complaints.push(why),
      forbid: (why) => void complaints.push(`forbidden: ${why}`),
    },
    signal: ending.signal,
  });
  const running = log.run().catch((error: unknown) => {
    if (!ending.signal.aborted) throw error;
  });
  return {
    log,
    complaints,
    end: () => {
      ending.abort(new Error("the end"));
      return running;
    },
  };
}

describe("ContainerLog", () => {
  test("reads no further than the terminal takes", async () => {
    let served = 0;
    function* endless(): Generator<string, void, void> {
      for (;;) yield `2024-01-02T03:04:05.${String(served++).padStart(9, "0")}Z ${"x".repeat(10_000)}\n`;
    }
    const taken = Promise.withResolvers<void>();
    let shows = 0;
    const { end } = logOf(
      (query) => (query.has("previous") ? { status: 400, chunks: [] } : { status: 200, chunks: endless() }),
      { show: () => ((shows += 1) === 1 ? taken.promise : Promise.resolve()) },
    );
    await waitUntil(() => served > 5);
    for (let i = 0; i < 1000; i++) await setImmediate();
    expect(served).toBeLessThan(20);
    taken.resolve();
    await waitUntil(() => served > 100);
    await end();
  });

  test("a node that has no log says so once, and is asked again while the container runs", async () => {
    let asked = 0;
    const shown: string[] = [];
    const { complaints, end } = logOf(
      (query) => {
        if (query.has("previous")) return { status: 400, chunks: [] };
        asked += 1;
        if (asked < 4) return { status: 200, chunks: ["unable to retrieve container logs for containerd://x"] };
        return { status: 200, chunks: ["2024-01-02T03:04:05Z hello\n"] };
      },
      { show: async (text) => void shown.push(text) },
    );
    await waitUntil(() => shown.length > 0);
    await end();
    expect(complaints).toEqual(["unable to retrieve container logs for containerd://x"]);
    expect(shown.join("")).toBe("web │ hello\n");
  });

  test("last words without a line end are shown also if the node has removed the container before the Pod is gone", async () => {
    let asked = 0;
    const shown: string[] = [];
    const { complaints, end, log } = logOf(
      (query) => {
        if (query.has("previous")) return { status: 400, chunks: [] };
        asked += 1;
        const said = "2024-01-02T03:04:05Z one\n2024-01-02T03:04:06Z last words";
        return { status: 200, chunks: [asked === 1 ? said : "unable to retrieve container logs for containerd://x"] };
      },
      { show: async (text) => void shown.push(text) },
    );
    await waitUntil(() => asked === 1 && shown.length > 0);
    log.update({ ...RUNNING, isRunning: false, version: "2" });
    await waitUntil(() => asked > 1);
    log.update({ ...RUNNING, isGone: true });
    await waitUntil(() => shown.join("").includes("last"));
    await end();
    expect(shown.join("")).toBe("web │ one\nweb │ last words\n");
    expect(complaints).toEqual([]);
  });

  test("ends with the Pod, and without the right to read", async () => {
    const { end, log } = logOf(() => ({ status: 404, chunks: ['{"message":"pods not found"}'] }), {
      show: async () => {},
    });
    log.update({ ...RUNNING, isGone: true });
    await end();
    const forbidden = logOf(() => ({ status: 403, chunks: ['{"message":"no\\u001b"}'] }), { show: async () => {} });
    await waitUntil(() => forbidden.complaints.length > 0);
    await forbidden.end();
    expect(forbidden.complaints).toEqual(["forbidden: no\\x1b"]);
  });
});

describe("stateOf()", () => {
  const status = (fields: object): object => ({ status: { containerStatuses: [{ name: "c", ...fields }] } });

  test.each([
    ["a container that waits", status({ state: { waiting: {} } }), false, false],
    ["one that runs", status({ state: { running: {} } }), true, true],
    ["one that has ended", status({ state: { terminated: {} } }), true, false],
    [
      "one that waits after it has ended",
      status({ state: { waiting: {} }, lastState: { terminated: {} } }),
      true,
      false,
    ],
    ["an init container", { status: { initContainerStatuses: [{ name: "c", state: { running: {} } }] } }, true, true],
    ["a Pod without a status", {}, false, false],
  ])("%s", (_, pod, hasLog, isRunning) => {
    expect(stateOf(pod, "c")).toEqual(expect.objectContaining({ hasLog, isRunning, isGone: false }));
  });
});
