/**
 * The file of `--metadata-file`: what a run published, for scripts and CI. Its schema is docs/schemas/metadata.v1.json.
 *
 * Keys with a dot have the names and the meaning that `docker buildx build --metadata-file` gives them:
 * https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
 */
import type { ErrorEvent, Event, ProgramEvent, ResultEvent, ResultImage, Stage, StageEvent } from "./events.ts";

/** The version of the schema: it changes if a program that reads the file may fail. */
export const METADATA_VERSION = 1;

/** All that a run has reported of a program. */
export interface ProgramRecord {
  readonly program: ProgramEvent;
  readonly result: ResultEvent | undefined;
  readonly sboms: readonly string[];
  /** Milliseconds. */
  readonly stages: ReadonlyMap<Stage, number>;
  /** Milliseconds from the beginning of the run to the result. */
  readonly took: number;
}

interface Entry extends ProgramRecord {
  result: ResultEvent | undefined;
  sboms: readonly string[];
  readonly stages: Map<Stage, number>;
  took: number;
}

/** Collects the events of a run, and formats them at its end. */
export class Metadata {
  /** By import path, in the order of the input. */
  readonly #entries = new Map<string, Entry>();
  readonly #byImage = new Map<string, Entry>();
  /** By the id of the stage. */
  readonly #begun = new Map<number, number>();
  readonly #errors: ErrorEvent[] = [];
  /** Milliseconds. */
  #startedAt = 0;

  /** In the order of the input. */
  get programs(): readonly ProgramRecord[] {
    return [...this.#entries.values()];
  }

  get errors(): readonly ErrorEvent[] {
    return this.#errors;
  }

  /** @param now milliseconds, monotonic */
  add(event: Event, now: number): void {
    switch (event.type) {
      case "program": {
        const entry = { program: event, result: undefined, sboms: [], stages: new Map<Stage, number>(), took: 0 };
        this.#entries.set(event.importPath, entry);
        this.#byImage.set(event.image, entry);
        break;
      }
      case "result": {
        const entry = this.#entries.get(event.importPath);
        if (entry === undefined) break;
        entry.result = event;
        entry.took = now - this.#startedAt;
        break;
      }
      case "sbom": {
        const entry = this.#entries.get(event.importPath);
        if (entry !== undefined) entry.sboms = [...entry.sboms, ...event.references];
        break;
      }
      case "stage":
        this.#addStage(event, now);
        break;
      case "error":
        this.#errors.push(event);
        break;
      case "run":
        if (event.state === "begin") this.#startedAt = now;
        break;
      case "info":
      case "warning":
      case "debug":
      case "transfer":
        break;
    }
  }

  /** @returns JSON with a line end */
  format({ exitCode, koVersion }: { readonly exitCode: number; readonly koVersion: string }): string {
    const programs = Array.from(this.#entries.values(), formatEntry);
    const errors = this.#errors.map((error) =>
      Object.fromEntries(Object.entries(error).filter(([key]) => key !== "type")),
    );
    return `${JSON.stringify({ version: METADATA_VERSION, koVersion, exitCode, programs, errors }, undefined, 2)}\n`;
  }

  #addStage({ id, stage, state, subject }: StageEvent, now: number): void {
    if (state === "begin") {
      this.#begun.set(id, now);
      return;
    }
    const took = now - (this.#begun.get(id) ?? now);
    this.#begun.delete(id);
    const entries = new Set([
      ...(subject.importPaths ?? []).map((importPath) => this.#entries.get(importPath)),
      subject.image === undefined ? undefined : this.#byImage.get(subject.image),
    ]);
    for (const entry of entries) entry?.stages.set(stage, (entry.stages.get(stage) ?? 0) + took);
  }
}

function formatEntry({ program, result, sboms, stages }: ProgramRecord): unknown {
  const { base, baseDigest, image, importPath, platforms, tags } = program;
  const [only, another] = result?.images ?? [];
  return {
    importPath,
    "image.name": tags.length === 0 ? image : tags.map((tag) => `${image}:${tag}`).join(","),
    platforms: result === undefined ? platforms.map((platform) => ({ platform })) : result.images.map(formatImage),
    base: { name: base, ...(baseDigest === undefined ? {} : { digest: baseDigest }) },
    ...(result === undefined
      ? { published: false }
      : {
          published: true,
          reference: result.reference,
          wasThere: result.wasThere,
          ...(result.also === undefined ? {} : { also: result.also }),
          "containerimage.digest": result.descriptor.digest,
          "containerimage.descriptor": result.descriptor,
          ...(only === undefined || another !== undefined ? {} : { "containerimage.config.digest": only.config }),
        }),
    sboms,
    seconds: Object.fromEntries(Array.from(stages, ([stage, took]) => [stage, Math.round(took) / 1000])),
  };
}

function formatImage({ config, layers, manifest, platform, why }: ResultImage): unknown {
  return { platform, ...manifest, config, layers, reused: why === undefined, ...(why === undefined ? {} : { why }) };
}
