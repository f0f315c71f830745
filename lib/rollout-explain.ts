/**
 * The error of an object that does not run: one sentence, the last lines of the program that ended, the places of a Go panic
 * in the checkout, and the command of kubectl that says more.
 */
import { ClusterError, KoError, printable } from "./errors.ts";
import type { Host } from "./host.ts";
import { textAt } from "./json.ts";
import type { ClusterApi } from "./rollout-api.ts";
import { findMainModule, findPanic, lastLines } from "./rollout-log.ts";
import { type Applied, resourceOf } from "./rollout-objects.ts";
import type { Cause } from "./rollout-pods.ts";

/** Why an object is given up. */
export interface Verdict {
  /** A clause whose subject is the object: `does not run`. */
  readonly text: string;
  /** @default none is known */
  readonly cause?: Cause | undefined;
}

export interface ExplainOptions {
  readonly api: ClusterApi;
  readonly applied: Applied;
  readonly host: Host;
  readonly namespace: string;
}

/** The error of an object. A log or a node that cannot be read is left out. */
export async function explainVerdict({ cause, text }: Verdict, options: ExplainOptions): Promise<ClusterError> {
  const { applied, host } = options;
  const name = resourceOf(applied);
  if (cause === undefined) {
    const hint = hintFor({ text, hopeless: true, pod: "" }, options);
    return new ClusterError(`${name} ${printable(text, 600)}`, { hint });
  }
  const pod = cause.pod === "" || applied.kind === "Pod" ? "" : ` (Pod ${cause.pod})`;
  let first = `${name} ${text}: ${cause.text}${pod}`;
  const rest: string[] = [];
  const output = await readLog(cause, options);
  const panic =
    output === undefined ? undefined : findPanic(output, { cwd: host.cwd, module: findMainModule(host.cwd) });
  if (output !== undefined) rest.push(...lastLines(output).map((line) => `  | ${line}`));
  if (panic !== undefined) {
    const [place0] = panic.places;
    first += `: ${panic.text}${place0 === undefined ? "" : ` at ${place0.file}:${place0.line}`}`;
    rest.push(...panic.places.map(({ file, line }) => `  → ${file}:${line}`));
  }
  const isForeign = /exec format error/.test(`${cause.text} ${output ?? ""}`);
  const platform = isForeign && cause.node !== undefined ? await platformOf(cause.node, options) : undefined;
  if (platform !== undefined) first += `. The program is for another processor: node ${cause.node} is ${platform}`;
  return new ClusterError([printable(first, 1200), ...rest].join("\n"), {
    hint: isForeign
      ? `Build for the platform of the nodes: --platform=${platform ?? "linux/ARCH"}`
      : hintFor(cause, options),
  });
}

/** The command of kubectl that says more. */
function hintFor({ log, pod }: Cause, { applied, namespace }: ExplainOptions): string {
  const place = namespace === "default" ? "" : ` -n ${namespace}`;
  if (pod === "") return `kubectl describe ${resourceOf(applied)}${place}`;
  if (log === undefined) return `kubectl describe pod/${pod}${place}`;
  return `kubectl logs pod/${pod} -c ${log.container}${place}`;
}

async function readLog({ log, pod }: Cause, options: ExplainOptions): Promise<string | undefined> {
  if (log === undefined) return undefined;
  return ask(options.api.readLog({ namespace: options.namespace, name: pod }, log), options);
}

/** The platform of a node; undefined if the user may not read it. */
async function platformOf(name: string, options: ExplainOptions): Promise<string | undefined> {
  const answer = await ask(options.api.get(`/api/v1/nodes/${encodeURIComponent(name)}`), options);
  if (answer?.kind !== "object") return undefined;
  const parts = ["operatingSystem", "architecture"].map((key) => textAt(answer.value, "status", "nodeInfo", key));
  return printable(parts.join("/"), 100);
}

/** The answer of the API; undefined if it does not answer. */
async function ask<T>(answer: Promise<T>, { host }: ExplainOptions): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    host.signal.throwIfAborted();
    if (!(error instanceof KoError)) throw error;
    return undefined;
  }
}
