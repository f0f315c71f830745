/**
 * `--offline`: what asks another machine is refused. The registries, proxies and web sites of this machine may be asked, and
 * so may the daemon and the cluster that the user names.
 */
import { KoError } from "./errors.ts";
import { isLoopback } from "./url.ts";

/** Set to a text that is not empty, it does what `--offline` does. */
const VARIABLE = "KO_OFFLINE";

/** Keeps go from the network. GONOPROXY would let private modules around GOPROXY. */
export const OFFLINE_GO = { GOPROXY: "off", GONOPROXY: "none" } as const;

type Environment = Readonly<Record<string, string>>;

/** The environment of a run that is offline: ko's own modules read it there, and go gets it. */
export function offlineEnvironment(env: Environment): Environment {
  return { ...env, ...OFFLINE_GO, [VARIABLE]: env[VARIABLE] || "1" };
}

/** Whether a run is offline. */
export function isOffline(env: Environment): boolean {
  return (env[VARIABLE] ?? "") !== "";
}

/**
 * Refuses a request to another machine if a run is offline.
 *
 * @param action the task, for the error: `read "https://example.com/x.yaml"`
 * @throws {KoError} If the host is not this machine.
 */
export function refuseOffline(
  { host }: URL,
  { action, env }: { readonly action: string; readonly env: Environment },
): void {
  if (!isOffline(env) || isLoopback(host)) return;
  throw new KoError(`Cannot ${action}: --offline allows requests to this machine alone, and it is at ${host}`);
}
