/**
 * The state of a run as a person wants to see it: a row for each program, and one line for the rest.
 *
 * It is computed from events; progress-block.ts draws it. It reads no clock: each call gets the time.
 */
import type { Event, ProgramEvent, StageEvent, TransferEvent } from "./events.ts";
import type { Stage } from "./events.ts";

/** A program in the block. */
export interface ProgressRow {
  readonly importPath: string;
  readonly platforms: number;
  /** In the order of their beginnings. */
  readonly stages: readonly ActiveStage[];
  /** Platforms whose compilation has ended. */
  readonly compiled: number;
  /** Whether one of its platforms was compiled. */
  readonly wasCompiled: boolean;
  readonly transfer: TransferTotals;
  readonly result: RowResult | undefined;
  /** Of the image. */
  readonly tags: readonly string[];
  /** Milliseconds; undefined until the first stage begins. */
  readonly since: number | undefined;
}

export interface ActiveStage {
  readonly stage: Stage;
  readonly text: string;
  /** Milliseconds. */
  readonly since: number;
}

/** All transfers of a program together. */
export interface TransferTotals {
  /** Bytes that arrived. */
  readonly bytes: number;
  /** Undefined while a blob is being made. */
  readonly total: number | undefined;
  /** Bytes per second over the last seconds; undefined if nothing moves. */
  readonly rate: number | undefined;
  readonly host: string | undefined;
}

export interface RowResult {
  readonly reference: string;
  readonly digest: string;
  readonly wasThere: boolean;
  /** Milliseconds from the first stage of the program. */
  readonly took: number;
}

/** Milliseconds over which a rate is measured. */
const RATE_WINDOW_MS = 3000;

interface Row {
  readonly importPath: string;
  readonly tags: readonly string[];
  readonly platforms: number;
  readonly stages: Map<number, ActiveStage>;
  readonly transfers: Map<number, TransferEvent>;
  /** Bytes that had arrived at a time, of the last seconds, oldest first. */
  readonly samples: { readonly at: number; readonly bytes: number }[];
  compiled: number;
  result: RowResult | undefined;
  since: number | undefined;
}

/** Collects the events of one run. */
export class Progress {
  readonly #rows = new Map<string, Row>();
  /** By the name of the image. */
  readonly #byImage = new Map<string, Row>();
  /** Stages that belong to no program. */
  readonly #stages = new Map<number, ActiveStage>();
  /** The last line of information, such as `go: downloading …`. */
  #note = "";

  get rows(): readonly ProgressRow[] {
    return Array.from(this.#rows.values(), viewOf);
  }

  /** Stages of the whole run, in the order of their beginnings. */
  get stages(): readonly ActiveStage[] {
    return [...this.#stages.values()];
  }

  /** The last line of information; empty if there was none since the last stage began. */
  get note(): string {
    return this.#note;
  }

  /** @param now milliseconds, monotonic */
  add(event: Event, now: number): void {
    switch (event.type) {
      case "program": {
        const row = this.#rows.get(event.importPath) ?? newRow(event);
        this.#rows.set(event.importPath, row);
        this.#byImage.set(event.image, row);
        break;
      }
      case "stage":
        this.#addStage(event, now);
        break;
      case "transfer":
        addTransfer(this.#byImage.get(event.image), event, now);
        break;
      case "result": {
        const row = this.#rows.get(event.importPath);
        if (row === undefined) break;
        const { descriptor, reference, wasThere } = event;
        row.result = { digest: descriptor.digest, reference, wasThere, took: now - (row.since ?? now) };
        break;
      }
      case "info":
        this.#note = event.message;
        break;
      case "warning":
      case "debug":
      case "error":
      case "sbom":
      case "run":
        break;
    }
  }

  #addStage({ id, stage, state, subject }: StageEvent, now: number): void {
    if (state === "begin") this.#note = "";
    const named = [
      ...(subject.importPaths ?? []).map((importPath) => this.#rows.get(importPath)),
      subject.image === undefined ? undefined : this.#byImage.get(subject.image),
    ];
    const rows = named.filter((row) => row !== undefined);
    const places = rows.length === 0 ? [this.#stages] : rows.map(({ stages }) => stages);
    for (const stages of places) {
      if (state === "begin") stages.set(id, { stage, text: subject.text, since: now });
      else stages.delete(id);
    }
    for (const row of rows) {
      row.since ??= now;
      if (stage === "compile" && state === "end") row.compiled += 1;
    }
  }
}

function newRow({ importPath, platforms, tags }: ProgramEvent): Row {
  return {
    importPath,
    tags,
    platforms: platforms.length,
    stages: new Map(),
    transfers: new Map(),
    samples: [],
    compiled: 0,
    result: undefined,
    since: undefined,
  };
}

function addTransfer(row: Row | undefined, event: TransferEvent, now: number): void {
  if (row === undefined) return;
  row.transfers.set(event.id, event);
  const bytes = sum(row.transfers.values().map((transfer) => transfer.bytes));
  row.samples.push({ at: now, bytes });
  while ((row.samples[0]?.at ?? now) < now - RATE_WINDOW_MS) row.samples.shift();
}

function viewOf(row: Row): ProgressRow {
  const { compiled, importPath, platforms, result, since, stages, tags } = row;
  return {
    importPath,
    tags,
    platforms,
    stages: [...stages.values()],
    compiled,
    wasCompiled: compiled > 0,
    transfer: totalsOf(row),
    result,
    since,
  };
}

function totalsOf({ samples, transfers }: Row): TransferTotals {
  const all = [...transfers.values()];
  const total = all.some((transfer) => transfer.total === undefined)
    ? undefined
    : sum(all.map((transfer) => transfer.total ?? 0));
  const [first, last] = [samples[0], samples.at(-1)];
  const span = first === undefined || last === undefined ? 0 : last.at - first.at;
  const moved = (last?.bytes ?? 0) - (first?.bytes ?? 0);
  return {
    bytes: sum(all.map(({ bytes }) => bytes)),
    total,
    rate: span < 200 || moved <= 0 ? undefined : (moved * 1000) / span,
    host: all.at(-1)?.host,
  };
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
