/**
 * The Pods of an object while they come and go: a list, then a watch, and a list again if the watch has gaps.
 *
 * https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
 */
import { systemClock } from "./async.ts";
import { KoError, printable } from "./errors.ts";
import { fieldAt, listAt, parseJson, textAt } from "./json.ts";
import type { ClusterApi, StreamAnswer } from "./rollout-api.ts";

/** A change of one Pod, or of the rights to see them. */
export type PodEvent =
  | { readonly kind: "pod"; readonly pod: unknown }
  /** Before the Pods of a list: milliseconds since 1970, by the clock of the API server. */
  | { readonly kind: "time"; readonly now: number }
  | { readonly kind: "gone"; readonly name: string }
  /** The user may not read Pods: no event follows. */
  | { readonly kind: "forbidden"; readonly message: string };

export interface PodWatchOptions {
  readonly openApi: () => Promise<Pick<ClusterApi, "stream">>;
  readonly namespace: string;
  /** Which Pods: `labelSelector`, `fieldSelector`. */
  readonly query: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** Bytes of a list of Pods, and of one event. */
const MAX_LIST = 64 * 1024 * 1024;
const MAX_EVENT = 8 * 1024 * 1024;
/** Seconds after which the server ends a watch, and milliseconds after which ko does: a dead connection is silent. */
const WATCH_SECONDS = 240;
const WATCH_MS = 270_000;
/** Milliseconds for a list. */
const LIST_MS = 30_000;
/** Milliseconds before another attempt; the last one also for all later ones. */
const WAITS_MS = [100, 500, 1000, 2000, 5000] as const;

/** Where a list ends and a watch begins. */
interface Listed {
  readonly pods: readonly unknown[];
  readonly version: string;
  readonly now: number;
}

/** Watches Pods until the signal aborts. @throws The signal's reason. */
export async function* watchPods(options: PodWatchOptions): AsyncGenerator<PodEvent, void, void> {
  const { signal } = options;
  let known = new Set<string>();
  let version: string | undefined;
  for (let failures = 0; ; failures++) {
    if (failures > 0) {
      await systemClock.sleep(WAITS_MS[Math.min(failures, WAITS_MS.length) - 1] ?? 0, signal);
    }
    try {
      if (version === undefined) {
        const listed = await list(options);
        if (listed.kind === "forbidden") return yield listed;
        yield { kind: "time", now: listed.now };
        for (const pod of listed.pods) yield { kind: "pod", pod };
        const names = new Set(listed.pods.map(nameOf));
        for (const name of known) if (!names.has(name)) yield { kind: "gone", name };
        [known, version] = [names, listed.version];
      }
      for await (const { object, type } of watch(options, version)) {
        // A watch that has lost its place begins anew: 410, "too old resource version".
        if (type === "ERROR") {
          version = undefined;
          break;
        }
        failures = -1;
        version = textAt(object, "metadata", "resourceVersion") || version;
        if (type === "BOOKMARK") continue;
        if (type === "DELETED") {
          known.delete(nameOf(object));
          yield { kind: "gone", name: nameOf(object) };
        } else {
          known.add(nameOf(object));
          yield { kind: "pod", pod: object };
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      // The API server, or kubectl proxy, is away.
      if (!(error instanceof KoError)) throw error;
      if (error instanceof Refused) version = undefined;
    }
  }
}

function nameOf(pod: unknown): string {
  return textAt(pod, "metadata", "name");
}

/** The API server does not give a watch from this version on. */
class Refused extends KoError {}

async function list(
  options: PodWatchOptions,
): Promise<(Listed & { readonly kind: "listed" }) | Extract<PodEvent, { readonly kind: "forbidden" }>> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(LIST_MS)]);
  const answer = await open(options, { more: {}, signal });
  const value = parseJson(await readText(answer));
  if (answer.status === 403 || answer.status === 401) {
    return { kind: "forbidden", message: printable(textAt(value, "message"), 300) };
  }
  const version = textAt(value, "metadata", "resourceVersion");
  if (answer.status !== 200 || version === "")
    throw new KoError(`Cannot list Pods: the API server answered ${answer.status}`);
  const now = Date.parse(answer.headers.get("date") ?? "");
  return { kind: "listed", pods: listAt(value, "items"), version, now };
}

async function readText({ body }: StreamAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_LIST) throw new KoError(`Cannot list Pods: the answer has more than ${MAX_LIST} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

interface WatchEvent {
  readonly type: string;
  readonly object: unknown;
}

async function* watch(options: PodWatchOptions, version: string): AsyncGenerator<WatchEvent, void, void> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(WATCH_MS)]);
  const more = {
    ...{ watch: "1", allowWatchBookmarks: "true", resourceVersion: version },
    timeoutSeconds: String(WATCH_SECONDS),
  };
  const answer = await open(options, { more, signal });
  if (answer.status !== 200) throw new Refused(`Cannot watch Pods: the API server answered ${answer.status}`);
  let rest = Buffer.alloc(0);
  for await (const chunk of answer.body) {
    rest = Buffer.concat([rest, chunk]);
    if (rest.length > MAX_EVENT) throw new Refused(`Cannot watch Pods: an event has more than ${MAX_EVENT} bytes`);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const value = parseJson(rest.toString("utf8", 0, end));
      rest = rest.subarray(end + 1);
      yield { type: textAt(value, "type"), object: fieldAt(value, "object") };
    }
  }
}

function open(
  { namespace, openApi, query }: PodWatchOptions,
  { more, signal }: { readonly more: Readonly<Record<string, string>>; readonly signal: AbortSignal },
): Promise<StreamAnswer> {
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods`;
  return openApi().then((api) =>
    api.stream(`${path}?${new URLSearchParams({ ...query, ...more }).toString()}`, signal),
  );
}
