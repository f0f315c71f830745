/**
 * ko's commands and flags as data.
 *
 * The tables feed the parser (cli-parse.ts), `--help`, docs/reference.md and shell completion: a flag or a command is one
 * entry here. What a flag's value means beyond its kind is checked where it is used.
 */
import type { FlagTable } from "./cli-flags.ts";
import { KUBECTL_FLAGS } from "./kubectl.ts";

export interface Command {
  /** One line, for the overview. */
  readonly summary: string;
  readonly aliases: readonly string[];
  /** The words after the command, as `--help` shows them; empty if it takes none. */
  readonly words: string;
  /** The fewest words it takes. @default 0 */
  readonly minWords?: number;
  /** The most words it takes. @default any number */
  readonly maxWords?: number;
  /** What its words are, for shell completion: one of these values, or a Go program. */
  readonly completes?: readonly string[] | "command" | "package";
  /**
   * Whose the words after `--` are: the command's own, like all others, or another program's.
   *
   * @default "own"
   */
  readonly afterDashes?: "own" | "other";
  /** True hands all words after the command, flags too, to another program; `--help` is still ko's. @default false */
  readonly raw?: boolean;
  /** Paragraphs with an empty line between; a line that begins with two blanks is shown as it is. */
  readonly about: string;
  /** What one wants to do, and what one types for it. */
  readonly examples: readonly (readonly [aim: string, typed: string])[];
  readonly flags: FlagTable;
}

/** Flags that stand before or after the command. */
export const GLOBAL_FLAGS = {
  verbose: { kind: "bool", short: "v", default: false, help: "Tell more on stderr: requests, programs that are run." },
  quiet: { kind: "bool", short: "q", default: false, help: "Tell nothing but warnings and errors on stderr." },
} as const;

const BUILD_FLAGS = {
  platform: {
    kind: "list",
    default: [],
    placeholder: "PLATFORM",
    values: ["all", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/ppc64le", "windows/amd64"],
    help: `What to build for: "all" (whatever the base image has), or a list of OS[/ARCH[/VARIANT]]. Without it: defaultPlatforms of .ko.yaml, else $GOOS/$GOARCH if both are set, else linux/amd64.`,
  },
  jobs: {
    kind: "int",
    short: "j",
    default: 0,
    min: 0,
    help: "How many compilers, linkers and layers may be at work at once; 0 means as many as processors and memory allow.",
  },
  "disable-optimizations": {
    kind: "bool",
    default: false,
    help: "Compile for a debugger: no optimizations, no inlining.",
  },
  compression: {
    kind: "text",
    default: "gzip",
    placeholder: "KIND",
    values: ["gzip", "gzip:9", "none", "zstd"],
    help: "How layers are compressed: gzip or gzip:1 (fast) to gzip:9 (small), zstd (on OCI bases only; Docker loads it from 23 on), none. Local daemons and clusters take plain layers in any case.",
  },
  "image-label": {
    kind: "list",
    default: [],
    placeholder: "KEY=VALUE",
    help: "Labels to set in the image's configuration.",
  },
  "image-annotation": {
    kind: "list",
    default: [],
    placeholder: "KEY=VALUE",
    help: "Annotations to set on the manifests (OCI images only).",
  },
  "image-user": {
    kind: "text",
    default: "",
    placeholder: "USER[:GROUP]",
    help: "The user the program runs as. Without it: the base image's.",
  },
  explain: {
    kind: "bool",
    default: false,
    help: "Tell on stderr, for each image, whether it was reused or rebuilt, and the first input that changed.",
  },
  timing: {
    kind: "optional",
    default: false,
    placeholder: "FILE",
    completes: "file",
    help: "Show where the time went: a table on stderr, or with =FILE a Chrome trace in that file.",
  },
} as const;

const PUBLISH_FLAGS = {
  tags: {
    kind: "list",
    short: "t",
    default: ["latest"],
    placeholder: "TAG",
    help: "Tags to give the image. One tag other than latest becomes part of the reference that is printed.",
  },
  "tag-only": {
    kind: "bool",
    default: false,
    help: "Print NAME:TAG without the digest. Needs exactly one tag other than latest.",
  },
  push: {
    kind: "bool",
    default: true,
    help: "Push to KO_DOCKER_REPO. --push=false builds only, and prints name, tag and digest.",
  },
  "preserve-import-paths": {
    kind: "bool",
    short: "P",
    default: false,
    help: "Name images KO_DOCKER_REPO/IMPORTPATH.",
  },
  "base-import-paths": {
    kind: "bool",
    short: "B",
    default: false,
    help: "Name images KO_DOCKER_REPO/LAST, the last element of the import path, without the MD5.",
  },
  bare: {
    kind: "bool",
    default: false,
    help: "Name images KO_DOCKER_REPO alone.",
  },
  "image-refs": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write the references to this file too, one per line, when everything has succeeded.",
  },
  "oci-layout-path": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "Add the images to the OCI image layout in this folder.",
  },
  tarball: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write all images into one file that docker load reads; - for stdout.",
  },
  "oci-archive": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write all images, of all platforms, into one file: an OCI image layout in a tar; - for stdout.",
  },
  local: {
    kind: "bool",
    short: "L",
    default: false,
    help: "Load the images into the local Docker or podman daemon, as ko.local/IMPORTPATH. Beats KO_DOCKER_REPO.",
  },
  "insecure-registry": {
    kind: "bool",
    default: false,
    help: "Take plain HTTP and certificates that nobody vouches for, for the host in KO_DOCKER_REPO.",
  },
} as const;

const YAML_FLAGS = {
  filename: {
    kind: "list",
    short: "f",
    default: [],
    placeholder: "FILE",
    completes: "file",
    help: "The YAML or JSON to read: files, folders (.yaml, .yml and .json in them), URLs, - for standard input.",
  },
  recursive: {
    kind: "bool",
    short: "R",
    default: false,
    help: "Read the subfolders of the folders too.",
  },
  kustomize: {
    kind: "text",
    short: "k",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: `Read what "kubectl kustomize DIR" prints.`,
  },
  selector: {
    kind: "text",
    short: "l",
    default: "",
    placeholder: "SELECTOR",
    help: "Take only the objects whose labels match, such as app=web,tier!=test. Others are neither built nor passed on.",
  },
  strict: {
    kind: "bool",
    default: true,
    help: "Fail on a ko:// reference that is no main package. --strict=false leaves it as it is, with a warning.",
  },
} as const;

const WATCH_FLAGS = {
  watch: {
    kind: "bool",
    short: "W",
    default: false,
    help: "Go on: whenever something changes that decides the result, build what it affects, and hand on what is new. Ctrl-C ends it.",
  },
} as const;

type BuildFlagTable = typeof PUBLISH_FLAGS & typeof BUILD_FLAGS & typeof GLOBAL_FLAGS;

const BUILD_COMMAND_FLAGS: BuildFlagTable = { ...PUBLISH_FLAGS, ...BUILD_FLAGS, ...GLOBAL_FLAGS };
const WATCHED_BUILD_FLAGS: typeof WATCH_FLAGS & BuildFlagTable = { ...WATCH_FLAGS, ...BUILD_COMMAND_FLAGS };
const RESOLVE_FLAGS: typeof YAML_FLAGS & typeof WATCHED_BUILD_FLAGS = { ...YAML_FLAGS, ...WATCHED_BUILD_FLAGS };
const RUN_FLAGS: typeof KUBECTL_FLAGS & BuildFlagTable = { ...KUBECTL_FLAGS, ...BUILD_COMMAND_FLAGS };
const APPLY_FLAGS: typeof YAML_FLAGS & typeof WATCH_FLAGS & typeof RUN_FLAGS = {
  ...YAML_FLAGS,
  ...WATCH_FLAGS,
  ...RUN_FLAGS,
};

/** The shells that completion scripts are made for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;

export type Shell = (typeof SHELLS)[number];

/** The flags of each command. */
export interface FlagsOf {
  readonly build: typeof WATCHED_BUILD_FLAGS;
  readonly resolve: typeof RESOLVE_FLAGS;
  readonly apply: typeof APPLY_FLAGS;
  readonly create: typeof APPLY_FLAGS;
  readonly delete: typeof GLOBAL_FLAGS;
  readonly run: typeof RUN_FLAGS;
  readonly cache: typeof GLOBAL_FLAGS;
  readonly completion: typeof GLOBAL_FLAGS;
  readonly version: typeof GLOBAL_FLAGS;
  readonly help: typeof GLOBAL_FLAGS;
}

export type CommandName = keyof FlagsOf;

/** All commands by name, in the order of the overview. */
export const COMMANDS: { readonly [N in CommandName]: Command & { readonly flags: FlagsOf[N] } } = {
  build: {
    summary: "Build Go programs into container images and publish them.",
    aliases: ["publish"],
    words: "[IMPORTPATH...]",
    completes: "package",
    about: `Builds each program, puts it on the base image, and pushes the image to the registry in KO_DOCKER_REPO. The references of the images are printed on stdout, one per line, in the order of the arguments.

A program is named by its import path, by a relative path such as ./cmd/app, or by a pattern such as ./..., which stands for every main package it matches; without an argument it is the package in this folder. The prefix ko:// may be there or not.

An image is named KO_DOCKER_REPO/LAST-MD5: the last element of the import path, and the MD5 of the whole. -P, -B and --bare name it otherwise; -P beats -B, and -B beats --bare.`,
    examples: [
      ["Build the program in this folder and push it", "KO_DOCKER_REPO=registry.example.com/team ko build"],
      ["Two programs, two platforms", "ko build --platform linux/amd64,linux/arm64 ./cmd/api ./cmd/worker"],
      ["Every program below this folder, tagged as a release", "ko build -B -t v1.2.3,latest ./..."],
      [
        "No registry: into a folder that skopeo and others read",
        "ko build --push=false --oci-layout-path dist ./cmd/api",
      ],
      ["Hand the image to another program", "kubectl create deployment api --image=$(ko build ./cmd/api)"],
    ],
    flags: WATCHED_BUILD_FLAGS,
  },
  resolve: {
    summary: "Print YAML with its ko:// references built, published and replaced.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: `Reads the YAML that -f and -k name, builds and publishes every Go program that it names as ko://IMPORTPATH, and prints the YAML with the images' references in their place. All else in it stays as it is, to the byte. Each program is built once, however often it is named.

A bad reference fails the command before anything is built. Nothing is printed unless everything has succeeded.`,
    examples: [
      ["One file of all that a release needs", "ko resolve -f config/ > release.yaml"],
      ["From standard input, without a push", "cat deployment.yaml | ko resolve --push=false -f -"],
      ["Only what is labelled so, subfolders too", "ko resolve -R -f config -l app=web"],
    ],
    flags: RESOLVE_FLAGS,
  },
  apply: {
    summary: "Do what resolve does, and give the result to kubectl apply.",
    aliases: [],
    words: "",
    maxWords: 0,
    afterDashes: "other",
    about: `Builds, publishes and replaces as "ko resolve" does, then runs "kubectl apply -f -" once, with the whole YAML. kubectl's exit code is ko's.

With -W it goes on: a change of Go sources, embedded files, kodata, go.mod, .ko.yaml or the YAML builds the programs that it affects, and applies the documents that are new with that. What fails is told, and done again when it is mended.

Words after -- go to kubectl as they are. The flags that choose a cluster, a user and a namespace can also stand directly.`,
    examples: [
      ["Build what config/ names, and apply it", "ko apply -f config/"],
      ["While you edit: into minikube's Docker, again with each save", "ko apply -L -W -f config/"],
      ["To another cluster and namespace", "ko apply -f config/ --context staging -n web"],
      ["With any flag of kubectl apply", "ko apply -f config/ -- --server-side --prune -l app=web"],
    ],
    flags: APPLY_FLAGS,
  },
  create: {
    summary: "Do what resolve does, and give the result to kubectl create.",
    aliases: [],
    words: "",
    maxWords: 0,
    afterDashes: "other",
    about: `The same as "ko apply", but with "kubectl create -f -", which fails on objects that exist.`,
    examples: [["Build what job.yaml names, and create it", "ko create -f job.yaml"]],
    flags: APPLY_FLAGS,
  },
  delete: {
    summary: "Run kubectl delete.",
    aliases: [],
    words: "[ARGUMENT...]",
    raw: true,
    about: `Hands everything to "kubectl delete": the same YAML that was applied names what is to go, and ko:// references in it do no harm. Nothing is built. "kubectl delete --help" shows the flags.`,
    examples: [["Take away what ko apply brought", "ko delete -f config/ --ignore-not-found"]],
    flags: GLOBAL_FLAGS,
  },
  run: {
    summary: "Build one program, and run it in a Pod through kubectl run.",
    aliases: [],
    words: "IMPORTPATH",
    minWords: 1,
    maxWords: 1,
    completes: "package",
    afterDashes: "other",
    about: `Builds and publishes the program as "ko build" does, runs it in a new Pod, shows its output, and takes the Pod away when it has ended. The program's exit code is ko's.

Words after -- go to kubectl run: its flags, and words for the program. The program's own flags stand after a second --.`,
    examples: [
      ["Run the program in cmd/job", "ko run ./cmd/job"],
      ["In another namespace, with a variable", "ko run ./cmd/job -n batch -- --env=MODE=dry"],
      ["With arguments for the program", "ko run ./cmd/job -- -- --verbose input.txt"],
    ],
    flags: RUN_FLAGS,
  },
  cache: {
    summary: "Show what is kept between runs, or remove it.",
    aliases: [],
    words: "[clean]",
    maxWords: 1,
    completes: ["clean"],
    about: `Prints where the cache is, its size and its limit in bytes, and how many entries it has, one per line; what stands after # is for people. "ko cache clean" removes all of it, and nothing else in that folder. That costs time only, also while another ko runs: what is missing is made again.

KOCACHE names the folder; KOCACHE=off keeps nothing. The limit is 10 GB or a tenth of the disk, whichever is less; KO_CACHE_MAX sets another one, such as 20GB. What was not used for longest goes first.`,
    examples: [
      ["Where it is, and how much it takes", "ko cache"],
      ["The size alone, in bytes", "ko cache | awk '$1 == \"size:\" { print $2 }'"],
      ["Begin anew", "ko cache clean"],
    ],
    flags: GLOBAL_FLAGS,
  },
  completion: {
    summary: "Print a script that completes ko's commands in a shell.",
    aliases: [],
    words: "[bash|zsh|fish|powershell]",
    maxWords: 1,
    completes: SHELLS,
    about: `Prints the script for the shell that is named, bash if none is. It completes commands, flags, their values, and the Go programs of the module.`,
    examples: [
      ["Bash: in ~/.bashrc", "source <(ko completion bash)"],
      ["Zsh: in ~/.zshrc", "source <(ko completion zsh)"],
      ["Fish", "ko completion fish > ~/.config/fish/completions/ko.fish"],
      ["PowerShell: in $PROFILE", "ko completion powershell | Out-String | Invoke-Expression"],
    ],
    flags: GLOBAL_FLAGS,
  },
  version: {
    summary: "Print the version of ko.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: "Prints the version of a release, or the commit that ko was built from.",
    examples: [],
    flags: GLOBAL_FLAGS,
  },
  help: {
    summary: "Show the help of a command.",
    aliases: [],
    words: "[COMMAND]",
    maxWords: 1,
    completes: "command",
    about: `The same as "ko COMMAND --help".`,
    examples: [["All flags of ko build", "ko help build"]],
    flags: GLOBAL_FLAGS,
  },
};

/** Every command with its name, with the type that all share. */
export function allCommands(): readonly (readonly [CommandName, Command])[] {
  const commands: Readonly<Record<CommandName, Command>> = COMMANDS;
  return Object.keys(commands)
    .filter(isCommandName)
    .map((name) => [name, commands[name]]);
}

export function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}
