/**
 * The flags of ko's commands.
 *
 * A flag is one entry here: the parser, `--help`, docs/reference.md and shell completion read it. cli-options.ts checks
 * the values beyond their kind.
 */
import { PUBLISH_FLAGS } from "./cli-flag-publish.ts";
import { LOGS_FLAGS, SWAP_FLAGS, WAIT_FLAGS } from "./cli-flag-rollout.ts";
import type { ListFlag } from "./cli-flags.ts";
import { KUBECTL_FLAGS } from "./kubectl.ts";

/** Flags of every command, which may stand before the command. */
export const GLOBAL_FLAGS = {
  verbose: { kind: "bool", short: "v", default: false, help: "Print requests and executed commands on stderr." },
  quiet: { kind: "bool", short: "q", default: false, help: "Print only warnings and errors on stderr." },
} as const;

const INPUT_FLAGS = {
  filename: {
    kind: "list",
    short: "f",
    default: [],
    placeholder: "FILE",
    completes: "file",
    help: "YAML or JSON to read: files, directories (their .yaml, .yml and .json files), URLs, or - for stdin.",
  },
  recursive: {
    kind: "bool",
    short: "R",
    default: false,
    help: "Read the directories given by -f recursively.",
  },
  kustomize: {
    kind: "text",
    short: "k",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: `Read the output of "kubectl kustomize DIR".`,
  },
  selector: {
    kind: "text",
    short: "l",
    default: "",
    placeholder: "SELECTOR",
    help: "Process only objects whose labels match, such as app=web,tier!=test. Other objects are neither built nor passed on.",
  },
  strict: {
    kind: "bool",
    default: true,
    help: "Fail on a ko:// reference that is not a main package. --strict=false leaves it unchanged and warns.",
  },
} as const;

const WATCH_FLAGS = {
  watch: {
    kind: "bool",
    short: "W",
    default: false,
    help: "Keep running: rebuild on changes, and publish, print or apply the new results. Ctrl-C stops.",
  },
} as const;

const NAME_FLAGS = {
  tags: {
    kind: "list",
    short: "t",
    default: ["latest"],
    placeholder: "TAG",
    help: "Tags of the images. A single tag other than latest is part of the printed reference.",
  },
  "tag-only": {
    kind: "bool",
    default: false,
    help: "Print NAME:TAG without the digest. Requires exactly one tag other than latest.",
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
    help: "Name images KO_DOCKER_REPO/LAST, where LAST is the last element of the import path.",
  },
  bare: {
    kind: "bool",
    default: false,
    help: "Name images KO_DOCKER_REPO, without a suffix.",
  },
} as const;

const OUTPUT_FLAGS = {
  json: { kind: "bool", default: false, help: "Print JSON instead of text." },
} as const;

const BUILD_FLAGS = {
  platform: {
    kind: "list",
    default: [],
    placeholder: "PLATFORM",
    values: ["all", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/ppc64le", "windows/amd64"],
    help: "Target platforms: all (every platform of the base image), cluster (what the nodes of kubectl's cluster run; for ko apply, create and run), or a list of OS[/ARCH[/VARIANT]]. Defaults to defaultPlatforms in .ko.yaml, then $GOOS/$GOARCH if both are set, then linux/amd64.",
  },
  ldflags: {
    kind: "list",
    commas: false,
    default: [],
    placeholder: "LDFLAGS",
    help: `Flags for the Go linker, such as "-s -w -X main.version=1.2". Repeatable. Replaces ldflags and defaultLdflags of .ko.yaml; --ldflags= sets none.`,
  },
  "disable-optimizations": {
    kind: "bool",
    default: false,
    help: "Compile for a debugger, without optimizations and inlining.",
  },
  debug: {
    kind: "bool",
    default: false,
    help: "Start the program by the Delve debugger, which is added to the image and waits for a client on port 40000. Implies --disable-optimizations. Delve is compiled from the module proxy, once for each version of Go and platform.",
  },
  "debug-continue": {
    kind: "bool",
    default: false,
    help: "With --debug: run the program at once. A client can connect at any time.",
  },
  "debug-port": {
    kind: "int",
    default: 40000,
    min: 1,
    placeholder: "PORT",
    help: "With --debug: the port that Delve listens to. It is named in the image configuration if this flag is given.",
  },
  reuse: {
    kind: "text",
    default: "commit",
    placeholder: "WHAT",
    values: ["commit", "code"],
    help: "What of earlier runs counts: commit (an image equals one that is built now) or code (an image of an older commit is kept as long as no input of its program has changed). Overrides reuse of cache in .ko.yaml.",
  },
  compression: {
    kind: "text",
    default: "gzip",
    placeholder: "KIND",
    values: ["gzip", "gzip:9", "none", "zstd"],
    help: "Layer compression: gzip or gzip:1 (fast) to gzip:9 (small), zstd (OCI base images only; Docker 23 or later loads it), or none. Local daemons and clusters always get uncompressed layers.",
  },
  "image-label": {
    kind: "list",
    default: [],
    placeholder: "KEY=VALUE",
    help: "Labels to set in the image configuration.",
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
    help: "User that the program runs as. Defaults to user of image in .ko.yaml, then to that of the base image.",
  },
  "image-env": {
    kind: "list",
    commas: false,
    default: [],
    placeholder: "NAME=VALUE",
    help: "Variable of containers, beside those of image in .ko.yaml and of the base image. Repeatable. May be a template.",
  },
  "image-workdir": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    help: "Working directory of containers, an absolute path. May be a template.",
  },
  "image-port": {
    kind: "list",
    default: [],
    placeholder: "PORT[/PROTOCOL]",
    help: "Ports that the program listens to, such as 8080 or 53/udp. Replaces ports of .ko.yaml; --image-port= names none.",
  },
  "image-volume": {
    kind: "list",
    default: [],
    placeholder: "DIR",
    help: "Directories that hold data of containers, absolute paths. Replaces volumes of .ko.yaml; --image-volume= names none.",
  },
  "image-cmd": {
    kind: "list",
    commas: false,
    default: [],
    placeholder: "ARG",
    help: "Argument of the program if a container gets none, one for each use. Replaces cmd of .ko.yaml. May be a template.",
  },
  "image-stop-signal": {
    kind: "text",
    default: "",
    placeholder: "SIGNAL",
    help: "Signal that stops containers, such as SIGINT. Defaults to that of the base image, then SIGTERM.",
  },
  "image-entrypoint-arg": {
    kind: "list",
    commas: false,
    default: [],
    placeholder: "ARG",
    help: "Argument that the program always gets, before all others, one for each use. Replaces entrypointArgs of .ko.yaml. May be a template.",
  },
} as const;

const SPEED_FLAGS = {
  jobs: {
    kind: "int",
    short: "j",
    default: 0,
    min: 0,
    help: "Maximum number of compilers, linkers and layers at work at once. 0 stands for as many as processors and memory allow.",
  },
} as const;

const REPORT_FLAGS = {
  "metadata-file": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write digests, tags, platforms, layers and reasons as JSON to FILE at the end, also after a failure.",
  },
  dotenv: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write KO_IMAGE, KO_DIGEST and KO_IMAGES to FILE at the end, as a dotenv report of GitLab.",
  },
  "github-output": {
    kind: "bool",
    default: false,
    help: "Write the outputs image, digest and images to GITHUB_OUTPUT, and a table to GITHUB_STEP_SUMMARY.",
  },
  events: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write what happens as lines of JSON to FILE, or with - to stderr in place of messages.",
  },
  progress: {
    kind: "text",
    default: "auto",
    placeholder: "MODE",
    values: ["auto", "tty", "plain", "none"],
    help: "How to show progress: tty (a live block), plain (lines), none, or auto: tty on terminals, else plain.",
  },
  explain: {
    kind: "bool",
    default: false,
    help: "Report on stderr, for each image, whether it was reused or rebuilt, and the first input that changed.",
  },
  timing: {
    kind: "optional",
    default: false,
    placeholder: "FILE",
    completes: "file",
    help: "Print a table of times on stderr; with FILE.html, write a page for browsers; else a Chrome trace.",
  },
} as const;

const LOGIN_CREDENTIAL_FLAGS = {
  username: { kind: "text", short: "u", default: "", placeholder: "USER", help: "User to log in as." },
  password: {
    kind: "text",
    short: "p",
    default: "",
    placeholder: "PASSWORD",
    help: "Password or token. The process list shows it: --password-stdin is safer.",
  },
  "password-stdin": {
    kind: "bool",
    default: false,
    help: "Read the password or token from stdin. Overrides --password.",
  },
} as const;

const CONSENT_FLAGS = {
  yes: { kind: "bool", short: "y", default: false, help: "Write the file without asking." },
} as const;

type BuildFlagTable = typeof NAME_FLAGS &
  typeof PUBLISH_FLAGS &
  typeof BUILD_FLAGS &
  typeof SPEED_FLAGS &
  typeof REPORT_FLAGS &
  typeof GLOBAL_FLAGS;

const ALL_BUILD_FLAGS: BuildFlagTable = {
  ...NAME_FLAGS,
  ...PUBLISH_FLAGS,
  ...BUILD_FLAGS,
  ...SPEED_FLAGS,
  ...REPORT_FLAGS,
  ...GLOBAL_FLAGS,
};

/** Of commands that end in kubectl: completion offers one platform more. */
const ENDING_FLAGS: typeof KUBECTL_FLAGS & { readonly platform: ListFlag } = {
  ...KUBECTL_FLAGS,
  platform: { ...BUILD_FLAGS.platform, values: ["cluster", ...BUILD_FLAGS.platform.values] },
};

/** The flags of `ko build`. */
export const BUILD_COMMAND_FLAGS: typeof WATCH_FLAGS & BuildFlagTable = { ...WATCH_FLAGS, ...ALL_BUILD_FLAGS };

/** The flags of `ko resolve`. */
export const RESOLVE_FLAGS: typeof INPUT_FLAGS & typeof BUILD_COMMAND_FLAGS = {
  ...INPUT_FLAGS,
  ...BUILD_COMMAND_FLAGS,
};

/** The flags of `ko create`. */
export const CREATE_FLAGS: Omit<typeof RESOLVE_FLAGS, "platform"> &
  typeof WAIT_FLAGS &
  typeof LOGS_FLAGS &
  typeof ENDING_FLAGS = {
  ...RESOLVE_FLAGS,
  ...WAIT_FLAGS,
  ...LOGS_FLAGS,
  ...ENDING_FLAGS,
};

/** The flags of `ko apply`. */
export const APPLY_FLAGS: typeof CREATE_FLAGS & typeof SWAP_FLAGS = { ...CREATE_FLAGS, ...SWAP_FLAGS };

/** The flags of `ko run`. */
export const RUN_FLAGS: Omit<BuildFlagTable, "platform"> & typeof ENDING_FLAGS = {
  ...ALL_BUILD_FLAGS,
  ...ENDING_FLAGS,
};

/** The flags of `ko config`: those of a build that decide a setting. */
export const CONFIG_FLAGS: typeof NAME_FLAGS &
  typeof PUBLISH_FLAGS &
  typeof BUILD_FLAGS &
  typeof OUTPUT_FLAGS &
  typeof GLOBAL_FLAGS = {
  ...NAME_FLAGS,
  ...PUBLISH_FLAGS,
  ...BUILD_FLAGS,
  ...OUTPUT_FLAGS,
  ...GLOBAL_FLAGS,
};

/** The flags of `ko init`. */
export const INIT_FLAGS: typeof CONSENT_FLAGS & typeof GLOBAL_FLAGS = { ...CONSENT_FLAGS, ...GLOBAL_FLAGS };

/** The flags of `ko check`: those that decide which faults there are. */
export const CHECK_COMMAND_FLAGS: Pick<typeof INPUT_FLAGS, "filename" | "recursive" | "selector"> &
  Pick<typeof NAME_FLAGS, "preserve-import-paths" | "base-import-paths" | "bare"> &
  Pick<typeof PUBLISH_FLAGS, "config" | "profile" | "local"> &
  Pick<typeof BUILD_FLAGS, "platform"> &
  typeof OUTPUT_FLAGS &
  typeof GLOBAL_FLAGS = {
  filename: INPUT_FLAGS.filename,
  recursive: INPUT_FLAGS.recursive,
  selector: INPUT_FLAGS.selector,
  "preserve-import-paths": NAME_FLAGS["preserve-import-paths"],
  "base-import-paths": NAME_FLAGS["base-import-paths"],
  bare: NAME_FLAGS.bare,
  config: PUBLISH_FLAGS.config,
  profile: PUBLISH_FLAGS.profile,
  local: PUBLISH_FLAGS.local,
  platform: BUILD_FLAGS.platform,
  ...OUTPUT_FLAGS,
  ...GLOBAL_FLAGS,
};

/** The flags of `ko login`. */
export const LOGIN_FLAGS: typeof LOGIN_CREDENTIAL_FLAGS & typeof GLOBAL_FLAGS = {
  ...LOGIN_CREDENTIAL_FLAGS,
  ...GLOBAL_FLAGS,
};

/** The flags of `ko doctor`: those that choose the daemon, the registry and the cluster. */
export const DOCTOR_FLAGS: Pick<typeof PUBLISH_FLAGS, "local" | "insecure-registry"> &
  typeof OUTPUT_FLAGS &
  typeof KUBECTL_FLAGS &
  typeof GLOBAL_FLAGS = {
  local: PUBLISH_FLAGS.local,
  "insecure-registry": PUBLISH_FLAGS["insecure-registry"],
  ...OUTPUT_FLAGS,
  ...KUBECTL_FLAGS,
  ...GLOBAL_FLAGS,
};
