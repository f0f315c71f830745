/**
 * Events of a run: the live block of a terminal, `--events` and `--metadata-file` are made from them.
 *
 * An event is a plain value without secrets. Its JSON form is docs/schemas/events.v1.json.
 */
import type { ErrorKind } from "./errors.ts";

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
 * - `rollout`: waiting until the applied objects run
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
  | "kubectl"
  | "rollout";

/** A place in a file that a message names, as compilers and ko write it: `cmd/web/main.go:3:15`. */
export interface EventPlace {
  /** Relative to the working directory if it is below it. */
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
}

/** A line for people. Warnings have the place that they name. */
export interface MessageEvent extends EventPlace {
  readonly type: "info" | "warning" | "debug";
  readonly message: string;
}

/** A program that the run is going to publish. */
export interface ProgramEvent {
  readonly type: "program";
  readonly importPath: string;
  /** Its name, without tag. */
  readonly image: string;
  /** In the order given; empty if the image gets no tag of the user's. */
  readonly tags: readonly string[];
  /** As {@link formatPlatform} of oci.ts writes them. */
  readonly platforms: readonly string[];
  /** As the user gave it, such as `gcr.io/distroless/static:nonroot`. */
  readonly base: string;
  /** Of the base's manifest or index. */
  readonly baseDigest?: string;
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
  /** Of the manifest or index. */
  readonly descriptor: Content;
  /** One, or those of the index in its order. */
  readonly images: readonly ResultImage[];
  /** The place had the image already. */
  readonly wasThere: boolean;
  /** The references in the places of `--also-push`. */
  readonly also?: readonly string[];
}

/** The image of one platform. */
export interface ResultImage {
  readonly platform: string;
  readonly manifest: Content;
  readonly config: string;
  readonly layers: readonly ResultLayer[];
  /** Why the program was compiled; undefined if its binary was reused. */
  readonly why?: { readonly reason: string; readonly file?: string };
}

export interface ResultLayer extends Content {
  readonly diffId: string;
}

/** The part of an OCI descriptor that identifies content. */
export interface Content {
  readonly mediaType: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

/** The SBOMs of a program's images were published. */
export interface SbomEvent {
  readonly type: "sbom";
  readonly importPath: string;
  readonly references: readonly string[];
}

/** A failure, one for each line `Error: …`. */
export interface ErrorEvent extends EventPlace {
  readonly type: "error";
  readonly code: ErrorKind;
  /** One line. */
  readonly message: string;
  /** The lines below it, such as the output of the compiler. */
  readonly details?: string;
  readonly hint?: string;
  readonly importPath?: string;
}

/** The first and the last event of a run, and of each round of `--watch`: a round that a change ends has no last one. */
export interface RunEvent {
  readonly type: "run";
  readonly state: "begin" | "end";
  readonly command: string;
  readonly koVersion: string;
  /** At the end. */
  readonly exitCode?: number;
}

/** An event that code below the command line reports. */
export type ReportedEvent = ProgramEvent | TransferEvent | ResultEvent | SbomEvent;

export type Event = MessageEvent | ReportedEvent | StageEvent | ErrorEvent | RunEvent;
