/**
 * Gives documents that need the yaml package to it: in this thread if they are small, else in a Worker, which a signal
 * ends at any time. The package takes a second and 100 MB for a megabyte, so the size is bounded.
 */
import { YamlError } from "./errors.ts";
import { isObject } from "./json.ts";
import { showPlace, type YamlDocument } from "./yaml.ts";

/** Work on one document; yaml.worker.ts says which function does it. */
export interface ExactJob {
  readonly task: "references" | "images" | "objects" | "select";
  readonly document: YamlDocument;
  /** Of "select". */
  readonly selector?: string;
}

/** The answer of the Worker. */
export type ExactAnswer = { readonly value: unknown } | { readonly message: string; readonly hint: string | undefined };

export interface RunExactOptions<T> {
  /** Does the job in this thread. */
  readonly work: () => Promise<T> | T;
  /** Checks the Worker's value. */
  readonly isValue: (value: unknown) => value is T;
  readonly signal: AbortSignal | undefined;
  /** The place in the document that made the job necessary. */
  readonly offset?: number;
}

/** Characters of a document that is read in this thread: less than 100 ms. */
const SMALL = 32 * 1024;
/** Characters of the largest document. Kubernetes stores objects up to 1.5 MB. */
const MAX_EXACT = 8 * 1024 * 1024;

/**
 * Runs a job.
 *
 * @throws {KoError} If the document is too large, or the work fails.
 */
export async function runExact<T>(job: ExactJob, options: RunExactOptions<T>): Promise<T> {
  const { work, isValue, signal, offset = 0 } = options;
  signal?.throwIfAborted();
  const { document } = job;
  const size = document.text.length;
  if (size > MAX_EXACT) {
    const why =
      job.task === "references" ? "it is not valid YAML here, or too unusual for a document" : "it is a document";
    throw new YamlError(
      `Cannot read "${showPlace(document, offset)}" as YAML: ${why} of ${size} characters, at most ${MAX_EXACT} are possible`,
      { hint: 'Split the document: one object between two lines "---".' },
    );
  }
  if (size <= SMALL) return work();
  const answer = await runInWorker(job, signal);
  if ("message" in answer) throw new YamlError(answer.message, { hint: answer.hint });
  if (!isValue(answer.value)) throw new TypeError(`a worker answered "${job.task}" with another value`);
  return answer.value;
}

async function runInWorker(job: ExactJob, signal: AbortSignal | undefined): Promise<ExactAnswer> {
  const worker = new Worker(workerModule());
  const ready = Promise.withResolvers<void>();
  const done = Promise.withResolvers<ExactAnswer>();
  const fail = (why: unknown): void => {
    ready.reject(why);
    done.reject(why);
  };
  worker.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
    if (data === "ready") ready.resolve();
    else if (isAnswer(data)) done.resolve(data);
  });
  worker.addEventListener("error", (event) => {
    // Keeps Bun from printing the error.
    event.preventDefault();
    fail(new Error(`a YAML worker failed: ${event.message}`));
  });
  const abort = (): void => fail(signal?.reason);
  done.promise.catch(() => {});
  try {
    // A worker that is still loading cannot be ended safely (docs/rules.md, Bun 3).
    await ready.promise;
    signal?.throwIfAborted();
    signal?.addEventListener("abort", abort, { once: true });
    worker.postMessage(job, []);
    return await done.promise;
  } finally {
    signal?.removeEventListener("abort", abort);
    worker.terminate();
  }
}

/** In a compiled executable the worker is an entry point, which keeps its folder (docs/rules.md, Bun 3). */
function workerModule(): URL {
  const here = import.meta.url;
  const isCompiled = here.includes("/$bunfs/") || here.includes("/~BUN/") || here.includes("/%7EBUN/");
  return new URL(isCompiled ? "./lib/yaml.worker.ts" : "./yaml.worker.ts", here);
}

function isAnswer(data: unknown): data is ExactAnswer {
  return isObject(data) && ("value" in data || typeof data["message"] === "string");
}
