import { describe, expect, test } from "bun:test";
import { KoError } from "../lib/errors.ts";
import { type PodEvent, watchPods } from "../lib/follow-pods.ts";
import type { StreamAnswer } from "../lib/rollout-api.ts";

const pod = (name: string, version = "1"): object => ({ metadata: { name, resourceVersion: version } });

/** An answer of the API server, and how it ends. */
interface Step {
  /** Of the request. */
  readonly asks: RegExp;
  readonly status?: number;
  readonly text: string;
  /** The connection is cut after the text. */
  readonly isCut?: boolean;
}

const list = (version: string, ...names: readonly string[]): string =>
  JSON.stringify({ metadata: { resourceVersion: version }, items: names.map((name) => pod(name)) });
const event = (type: string, object: object): string => `${JSON.stringify({ type, object })}\n`;

/** Answers requests by the steps in their order; the events are those until the last step has ended. */
async function watchSteps(steps: readonly Step[]): Promise<readonly string[]> {
  const ending = new AbortController();
  const left = [...steps];
  const stream = async (path: string): Promise<StreamAnswer> => {
    const step = left.shift();
    if (step === undefined) {
      ending.abort(new Error("the end"));
      throw new KoError("the end");
    }
    expect(path).toMatch(step.asks);
    async function* body(): AsyncGenerator<Uint8Array, void, void> {
      const bytes = new TextEncoder().encode(step?.text);
      // An event in several chunks.
      for (let at = 0; at < bytes.length; at += 20) yield bytes.slice(at, at + 20);
      if (step?.isCut === true) throw new KoError("cut");
    }
    return {
      status: step.status ?? 200,
      headers: new Headers({ date: "Tue, 02 Jan 2024 03:04:05 GMT" }),
      body: body(),
    };
  };
  const told: string[] = [];
  const options = {
    openApi: async () => ({ stream }),
    namespace: "default",
    query: { labelSelector: "a=b" },
    signal: ending.signal,
  };
  try {
    for await (const each of watchPods(options)) told.push(tell(each));
  } catch (error) {
    if (!ending.signal.aborted) throw error;
  }
  return told;
}

function tell(told: PodEvent): string {
  if (told.kind === "pod") return `pod ${JSON.stringify(told.pod).replace(/.*"name":"(\w+)".*/, "$1")}`;
  return told.kind === "gone" ? `gone ${told.name}` : told.kind;
}

describe("watchPods()", () => {
  const LIST = /^\/api\/v1\/namespaces\/default\/pods\?labelSelector=a%3Db$/;
  const watchFrom = (version: string): RegExp => new RegExp(`[?&]watch=1&.*resourceVersion=${version}(?:&|$)`);

  test.each<[string, readonly Step[], readonly string[]]>([
    [
      "goes on where a watch was cut, after its last event or bookmark",
      [
        { asks: LIST, text: list("7", "a") },
        { asks: watchFrom("7"), text: event("ADDED", pod("b", "8")) + event("DELETED", pod("a", "9")), isCut: true },
        { asks: watchFrom("9"), text: event("BOOKMARK", pod("", "20")) },
        { asks: watchFrom("20"), text: event("MODIFIED", pod("b", "21")) + '{"type":"MODIFIED","obj', isCut: true },
        { asks: watchFrom("21"), text: "" },
      ],
      ["time", "pod a", "pod b", "gone a", "pod b"],
    ],
    [
      "lists again if the server no longer knows the version, and finds what has gone meanwhile",
      [
        { asks: LIST, text: list("7", "a", "b") },
        { asks: watchFrom("7"), text: event("ERROR", { kind: "Status", code: 410, reason: "Expired" }) },
        { asks: LIST, text: list("90", "b", "c") },
        { asks: watchFrom("90"), status: 410, text: "{}" },
        { asks: LIST, text: list("95", "c") },
        { asks: watchFrom("95"), text: "" },
      ],
      ["time", "pod a", "pod b", "time", "pod b", "pod c", "gone a", "time", "pod c", "gone b"],
    ],
    [
      "asks again while the server is away",
      [
        { asks: LIST, status: 503, text: "starting" },
        { asks: LIST, text: "{", isCut: true },
        { asks: LIST, text: list("1", "a") },
      ],
      ["time", "pod a"],
    ],
    ["ends if the user may not list Pods", [{ asks: LIST, status: 403, text: '{"message":"no"}' }], ["forbidden"]],
  ])("%s", async (_, steps, wanted) => {
    expect(await watchSteps(steps)).toEqual([...wanted]);
  });
});
