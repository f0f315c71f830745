/**
 * The parts of the program that everything in one attempt of a run shares.
 */
import type { Cache } from "./cache.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import type { Timing } from "./timing.ts";

export interface RunContext {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** Undefined reads and stores nothing of other runs. */
  readonly cache: Cache | undefined;
}
