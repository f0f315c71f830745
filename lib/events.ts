/**
 * Events of a run: lines on stderr and the live block of a terminal are made from them.
 *
 * An event is a plain value without secrets. The JSON form is in docs/schemas/events.v1.json.
 */
/**
 * A stage of a run:
 *
 * - `start`: the start of ko, until the flags are parsed
 * - `read`: reading the YAML of `-f` and `-k`
 * - `list`: `go list`
 * - `base`: pulling base images
 * - `check`: proving that cached results are still valid
 * - `compile`: `go build`, which compiles and links
 * - `layer`: tar, digest, compression
 * - `upload`: pushing blobs to a registry
 * - `manifest`: pushing manifests and tags to a registry
 * - `load`: loading images into a daemon or cluster nodes
 * - `write`: writing layouts and archives
 * - `sbom`: making, writing and pushing SBOMs
 * - `kubectl`: `kubectl`
 */
export type Stage =
  | "start"
  | "read"
  | "list"
  | "base"
  | "check"
  | "compile"
  | "layer"
  | "upload"
  | "manifest"
  | "load"
  | "write"
  | "sbom"
  | "kubectl";

/** A line for people. */
export interface MessageEvent {
  readonly type: "info" | "warning" | "debug";
  readonly message: string;
}

/** A program that the run is going to publish. */
export interface ProgramEvent {
  readonly type: "program";
  readonly importPath: string;
  /** Its name, without tag. */
  readonly image: string;
  /** As {@link formatPlatform} of oci.ts writes them. */
  readonly platforms: readonly string[];
  /** As the user gave it, such as `gcr.io/distroless/static:nonroot`. */
  readonly base: string;
}

/** A stage of the run, or of some of its programs, begins or ends. */
export interface StageEvent {
  readonly type: "stage";
  readonly state: "begin" | "end";
  readonly stage: Stage;
  /** The same for the beginning and the end. */
  readonly id: number;
  readonly subject: StageSubject;
  /** At the end: how long it took. */
  readonly milliseconds?: number;
}

/** What a stage works on. */
export interface StageSubject {
  /** For people and traces: import paths, a platform, a name. */
  readonly text: string;
  /** @default none */
  readonly importPaths?: readonly string[];
  /** The name of an image, if the stage is one of publishing. */
  readonly image?: string;
}

/** Bytes of one blob went to a registry or a daemon, or came from there. */
export interface TransferEvent {
  readonly type: "transfer";
  /** The same for all events of one transfer. */
  readonly id: number;
  readonly direction: "upload" | "download";
  /** The host of the registry, or the name of the daemon. */
  readonly host: string;
  /** The name of the image that the blob is for. */
  readonly image: string;
  /** So far. A retry begins at 0 again. */
  readonly bytes: number;
  /** Undefined while the blob is being made. */
  readonly total?: number;
  readonly state: "moving" | "done";
}

/** A program was published. */
export interface ResultEvent {
  readonly type: "result";
  readonly importPath: string;
  /** As printed on stdout or put into YAML. */
  readonly reference: string;
  readonly digest: string;
  /** The place had the image already. */
  readonly wasThere: boolean;
}

/** A failure, one for each line `Error: …`. */
export interface ErrorEvent {
  readonly type: "error";
  /** The kind of failure, in lower case with hyphens: `usage`, `compile`, `registry`, … */
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
  readonly importPath?: string;
}

/** The first and the last event of a run, and of each round of `--watch`. */
export interface RunEvent {
  readonly type: "run";
  readonly state: "begin" | "end";
  readonly command: string;
  /** At the end. */
  readonly exitCode?: number;
}

export type Event = MessageEvent | ProgramEvent | StageEvent | TransferEvent | ResultEvent | ErrorEvent | RunEvent;
