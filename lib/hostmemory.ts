/**
 * What earlier runs learned of registries, so that a run need not ask each of them `GET /v2/` again.
 *
 * Here is what is kept and how it is read back; where it is kept is the caller's matter, what it is used for is
 * ping.ts's. It holds no credential and no token, and nothing in it is believed: what it says is tried, not trusted.
 */
import type { Challenge } from "./challenge.ts";
import { isObject } from "./gojson.ts";

/** Plain data, to be kept as JSON. */
export interface RememberedHost {
  /** `https://host/` or `http://host/`. */
  readonly base: string;
  /** What the registry asked for; without it, it asked for nothing. */
  readonly challenge?: Challenge;
}

/** A store that may lose everything at any time; entries that are some days old are best left out. */
export interface HostMemory {
  /**
   * @param host `host[:port]`
   * @returns what {@link readRememberedHost} makes of what was stored
   */
  recall(host: string): Promise<RememberedHost | undefined>;
  /** Replaces what is known of `host`. Must not throw, nor make anybody wait. */
  remember(host: string, what: RememberedHost): void;
  /** It was wrong. Must not throw, nor make anybody wait. */
  forget(host: string): void;
}

/** Longer than any that registries send. */
const MAX_CHARS = 2048;
/** The only parameters that count beyond the request that drew the challenge. */
const KEPT_PARAMETERS = ["realm", "service"] as const;

/** Reads JSON that anybody may have written, or undefined when it is not what was stored. */
export function readRememberedHost(value: unknown): RememberedHost | undefined {
  if (!isObject(value)) return undefined;
  const { base, challenge } = value;
  if (!isText(base) || !/^https?:\/\/[^/?#@\\]+\/$/.test(base) || !URL.canParse(base)) return undefined;
  if (challenge === undefined) return { base };
  if (!isObject(challenge) || !isObject(challenge["parameters"])) return undefined;
  const { parameters, scheme } = challenge;
  if (scheme !== "basic" && scheme !== "bearer") return undefined;
  if (!Object.values(parameters).every(isText)) return undefined;
  const kept = keepChallenge({ scheme, parameters: Object.fromEntries(pickKept(parameters)) });
  return kept === undefined ? undefined : { base, challenge: kept };
}

/** What of a challenge may be kept, or undefined when it cannot be used without what may not. */
export function keepChallenge({ scheme, parameters }: Challenge): Challenge | undefined {
  if (scheme === "basic") return { scheme, parameters: {} };
  const { realm = "" } = parameters;
  if (!isText(realm) || !URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  if (url.username !== "" || url.password !== "") return undefined;
  const kept = pickKept(parameters);
  return kept.every(([, value]) => isText(value)) ? { scheme, parameters: Object.fromEntries(kept) } : undefined;
}

/** Whether two challenges ask for the same, whatever they were drawn by. */
export function isSameChallenge(a: Challenge | undefined, b: Challenge | undefined): boolean {
  if (a === undefined || b === undefined || a.scheme !== b.scheme) return a === b;
  return a.scheme === "basic" || KEPT_PARAMETERS.every((name) => a.parameters[name] === b.parameters[name]);
}

function pickKept(parameters: Readonly<Record<string, unknown>>): [string, string][] {
  return KEPT_PARAMETERS.flatMap((name): [string, string][] => {
    const value = parameters[name];
    return typeof value === "string" ? [[name, value]] : [];
  });
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_CHARS && !/[\u0000-\u001f\u007f]/.test(value);
}
