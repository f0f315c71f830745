/**
 * The table of ko's commands.
 *
 * The parser (cli-parse.ts), `--help`, docs/reference.md and shell completion read it: a command is one entry here. The
 * flags are in cli-flag-groups.ts.
 */
import { BASE_FLAGS } from "./cli-flag-bases.ts";
import { CHOICE_FLAGS } from "./cli-flag-choice.ts";
import {
  APPLY_FLAGS,
  CREATE_FLAGS,
  BUILD_COMMAND_FLAGS,
  DOCTOR_FLAGS,
  CONFIG_FLAGS,
  CHECK_COMMAND_FLAGS,
  GLOBAL_FLAGS,
  INIT_FLAGS,
  LOGIN_FLAGS,
  RESOLVE_FLAGS,
  RUN_FLAGS,
} from "./cli-flag-groups.ts";
import { REBASE_FLAGS, SIZE_FLAGS } from "./cli-flag-images.ts";
import type { FlagTable } from "./cli-flags.ts";
import { CACHE_VARIABLES, GO_COMMAND, LOGIN_VARIABLES, MAIN_VARIABLES } from "./cli-environment.ts";

export interface Command {
  /** One line, for the overview. */
  readonly summary: string;
  readonly aliases: readonly string[];
  /** The arguments and required flags in the usage line. */
  readonly words: string;
  /** The minimum number of arguments. @default 0 */
  readonly minWords?: number;
  /** The maximum number of arguments. @default unlimited */
  readonly maxWords?: number;
  /** True keeps the arguments out of messages: one of them may be a part of a password. @default false */
  readonly hidesWords?: boolean;
  /** The arguments that shell completion offers: these values, commands, or main packages. */
  readonly completes?: readonly string[] | "command" | "package";
  /**
   * The receiver of the words after `--`: the command, as of all other arguments, or another program.
   *
   * @default "own"
   */
  readonly afterDashes?: "own" | "other";
  /** True passes all words after the command, including flags but not `--help`, to another program. @default false */
  readonly raw?: boolean;
  /** Paragraphs with an empty line between them; a line that begins with two blanks is not wrapped. */
  readonly about: string;
  readonly examples: readonly Example[];
  readonly flags: FlagTable;
  /** Environment variables, with one or two sentences each. */
  readonly environment: Readonly<Record<string, string>>;
}

/** A purpose, and the lines to type for it. */
export type Example = readonly [purpose: string, typed: string];

/** The shells that completion scripts are made for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;

export type Shell = (typeof SHELLS)[number];

/** The flags of each command. */
export interface FlagsOf {
  readonly build: typeof CHOICE_FLAGS & typeof BUILD_COMMAND_FLAGS;
  readonly resolve: typeof RESOLVE_FLAGS;
  readonly apply: typeof APPLY_FLAGS;
  readonly create: typeof CREATE_FLAGS;
  readonly delete: typeof GLOBAL_FLAGS;
  readonly run: typeof RUN_FLAGS;
  readonly config: typeof CONFIG_FLAGS;
  readonly init: typeof INIT_FLAGS;
  readonly check: typeof CHECK_COMMAND_FLAGS;
  readonly login: typeof LOGIN_FLAGS;
  readonly logout: typeof GLOBAL_FLAGS;
  readonly base: typeof BASE_FLAGS;
  readonly rebase: typeof REBASE_FLAGS;
  readonly size: typeof SIZE_FLAGS;
  readonly cache: typeof GLOBAL_FLAGS;
  readonly doctor: typeof DOCTOR_FLAGS;
  readonly completion: typeof GLOBAL_FLAGS;
  readonly version: typeof GLOBAL_FLAGS;
  readonly help: typeof GLOBAL_FLAGS;
}

export type CommandName = keyof FlagsOf;

/** The examples of `ko --help`. */
export const OVERVIEW_EXAMPLES: readonly Example[] = [
  [
    "Build the program in ./cmd/api, and push the image",
    "export KO_DOCKER_REPO=registry.example.com/team\nko build ./cmd/api",
  ],
  ["Load it into the local Docker daemon instead", "ko build -L ./cmd/api"],
  ["Build, push and deploy the programs that config/ references", "ko apply -f config/"],
];

/** All commands by name, in the order of the overview. */
export const COMMANDS: { readonly [N in CommandName]: Command & { readonly flags: FlagsOf[N] } } = {
  build: {
    summary: "Build Go programs into container images and publish them.",
    aliases: ["publish"],
    words: "[IMPORTPATH...]",
    completes: "package",
    about: `Builds each program, adds it to a base image, and pushes the image to the registry in KO_DOCKER_REPO. Prints the image references on stdout, one per line, in the order of the arguments.

IMPORTPATH is an import path, a relative path such as ./cmd/app, or a pattern such as ./..., which stands for every main package it matches. It defaults to the package in the working directory. A ko:// prefix is optional.

Images are named KO_DOCKER_REPO/LAST-MD5: LAST is the last element of the import path, MD5 the hash of the whole path. -P, -B and --bare choose other names; -P takes precedence over -B, and -B over --bare.

The file .ko.yaml in the working directory sets base images and platforms (defaultBaseImage, baseImageOverrides, defaultPlatforms), and the environment and flags of go: for all programs (defaultEnv, defaultFlags, defaultLdflags), and for single ones (builds).`,
    examples: [
      [
        "Build the program in the working directory, and push the image",
        "KO_DOCKER_REPO=registry.example.com/team ko build",
      ],
      ["Build for two platforms", "ko build --platform linux/amd64,linux/arm64 ./cmd/api ./cmd/worker"],
      [
        "Push all programs of the module with two tags, and save the references",
        "ko build -B -t v1.2.3,latest --image-refs images.txt ./...",
      ],
      ["Load the image into the local Docker daemon, again on every change", "ko build -L -W ./cmd/api"],
      [
        "Leave out symbols, and set a variable of the program",
        "ko build --ldflags=-s,-w,-X=main.version=1.2.3 ./cmd/api",
      ],
      ["Push the programs of the repository that differ from main", "ko build --all --changed-since origin/main"],
      ["Write an OCI layout, without a registry", "ko build --push=false --oci-layout-path dist ./cmd/api"],
    ],
    flags: { ...CHOICE_FLAGS, ...BUILD_COMMAND_FLAGS },
    environment: MAIN_VARIABLES,
  },
  resolve: {
    summary: "Print YAML with ko:// references replaced by images.",
    aliases: [],
    words: "(-f FILE | -k DIR)",
    maxWords: 0,
    about: `Reads the YAML given by -f and -k, builds and publishes every Go program that it references as ko://IMPORTPATH, and prints the YAML with the references of the images instead. Everything else stays unchanged, byte by byte. Each program is built once, however often it is referenced.

An invalid reference fails the command before anything is built. Nothing is printed unless everything has succeeded.`,
    examples: [
      ["Write the YAML of a release", "ko resolve -t v1.2.3 -f config/ > release.yaml"],
      ["Read a kustomization", "ko resolve -k overlays/production > production.yaml"],
      ["Read stdin, and build without pushing", "cat deployment.yaml | ko resolve --push=false -f -"],
      ["Select objects by label, in subdirectories too", "ko resolve -R -f config/ -l app=web"],
    ],
    flags: RESOLVE_FLAGS,
    environment: MAIN_VARIABLES,
  },
  apply: {
    summary: "Resolve YAML and pass it to kubectl apply.",
    aliases: [],
    words: "(-f FILE | -k DIR)",
    maxWords: 0,
    afterDashes: "other",
    about: `Resolves the YAML as "ko resolve" does, then runs "kubectl apply" once, with the whole YAML on stdin. Exits with kubectl's exit code.

With -W, ko keeps running. A change of Go sources, embedded files, kodata, go.mod, .ko.yaml or the YAML rebuilds the affected programs and applies the affected documents. Failures are reported, and retried once they are fixed.

Arguments after -- are passed to kubectl. The flags that select a cluster, user and namespace also work before it.`,
    examples: [
      ["Build the programs that config/ references, and apply it", "ko apply -f config/"],
      ["Rebuild and apply on every save, straight into minikube's Docker", "ko apply -L -W -f config/"],
      ["The same, with the output of the programs", "ko apply -L -W --logs -f config/"],
      ["Select a cluster and a namespace", "ko apply -f config/ --context staging -n web"],
      ["Build for the platforms of the cluster's nodes", "ko apply -f config/ --platform=cluster"],
      ["Pass other flags to kubectl apply", "ko apply -f config/ -- --server-side --prune -l app=web"],
    ],
    flags: APPLY_FLAGS,
    environment: MAIN_VARIABLES,
  },
  create: {
    summary: "Resolve YAML and pass it to kubectl create.",
    aliases: [],
    words: "(-f FILE | -k DIR)",
    maxWords: 0,
    afterDashes: "other",
    about: `Does the same as "ko apply", but with "kubectl create", which fails for objects that exist already. With -W, it creates the documents that changed, which suits Jobs with generateName.`,
    examples: [
      ["Start a new Job each time, if job.yaml has metadata.generateName", "ko create -f job.yaml"],
      ["Pass other flags to kubectl create", "ko create -f job.yaml -n batch -- --dry-run=server"],
    ],
    flags: CREATE_FLAGS,
    environment: MAIN_VARIABLES,
  },
  delete: {
    summary: "Delete objects with kubectl delete.",
    aliases: [],
    words: "[KUBECTL_ARGUMENT...]",
    raw: true,
    about: `Passes all arguments to "kubectl delete". Nothing is built: ko:// references in the YAML have no effect, so the files given to "ko apply" work here too. "kubectl delete --help" lists the flags.`,
    examples: [
      ["Delete the objects that ko apply created", "ko delete -f config/ --ignore-not-found"],
      ["Delete them from one namespace", "ko delete -f config/ -n web"],
    ],
    flags: GLOBAL_FLAGS,
    environment: {},
  },
  run: {
    summary: "Build a Go program and run it in a Kubernetes pod.",
    aliases: [],
    words: "IMPORTPATH",
    minWords: 1,
    maxWords: 1,
    completes: "package",
    afterDashes: "other",
    about: `Builds and publishes the program as "ko build" does, runs it in a new pod through "kubectl run", shows its output, and removes the pod when the program ends. Exits with the program's exit code.

Arguments after -- are passed to "kubectl run": its flags, and arguments for the program. kubectl takes all flags for its own, so a second -- must precede flags of the program.`,
    examples: [
      ["Run the program in ./cmd/job", "ko run ./cmd/job"],
      ["Set the namespace and an environment variable", "ko run ./cmd/job -n batch -- --env=MODE=dry"],
      ["Pass a flag and an argument to the program", "ko run ./cmd/job -- -- --verbose input.txt"],
    ],
    flags: RUN_FLAGS,
    environment: MAIN_VARIABLES,
  },
  config: {
    summary: "Show the settings that hold for programs, and their origins.",
    aliases: [],
    words: "[IMPORTPATH...] | schema",
    completes: "package",
    about: `Prints the settings with which "ko build" would build each program: image name and tags, destination, base image, platforms, environment and flags of go with templates expanded, capabilities, SBOM. Text after # is the origin: a flag, a variable, or a line of .ko.yaml. Without IMPORTPATH, prints the settings of all programs without an entry in builds.

The flags of "ko build" show the effect that they would have. Nothing is built, and no registry or daemon is asked: the base image is shown as it is named.

Values of variables are shown if they are in .ko.yaml and their names do not look secret. A word with a template that reads another variable is shown as it is written.

"ko config schema" prints the JSON Schema of .ko.yaml.`,
    examples: [
      ["Show the settings of a program", "ko config ./cmd/api"],
      ["Show the effect of flags", "ko config -B -t v1.2.3 --platform linux/arm64 ./cmd/api"],
      ["Print the base image of each program", "ko config --json ./... | jq -r '.programs[].base.value'"],
      ["Save the schema for an editor", "ko config schema > .ko.schema.json"],
    ],
    flags: CONFIG_FLAGS,
    environment: MAIN_VARIABLES,
  },
  init: {
    summary: "Write a first .ko.yaml.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: `Finds the programs of the module, and writes .ko.yaml with an entry for each, after a question. The images stay the same, because every setting has its default. Editors with a YAML language server take the schema from .ko.schema.json, which is written beside it.

No file is overwritten.`,
    examples: [
      ["Show the file, and ask whether to write it", "ko init"],
      ["Write it without a question, in a script", "ko init --yes"],
    ],
    flags: INIT_FLAGS,
    environment: GO_COMMAND,
  },
  check: {
    summary: "Find mistakes in YAML, configuration and programs, without a build.",
    aliases: [],
    words: "[IMPORTPATH...]",
    completes: "package",
    about: `Finds everything that would make "ko apply" or "ko build" fail, as far as that can be known without a build: references that name no main package, YAML that is broken, settings in .ko.yaml that are wrong or are for no program, templates without their data, symlinks in kodata that lead out, containers that cannot start. Checks the YAML of -f with the programs in it, the programs of the arguments, or without both all programs of the module in the working directory.

Prints all findings on stdout, one per line, as FILE:LINE:COLUMN: error: TEXT or warning: TEXT. Exits with 1 if there is an error, with 0 if there are only warnings.

Nothing is built, downloaded or sent, no cluster or daemon is asked, and ko writes no file: its cache is only read. "go list" and git are run.`,
    examples: [
      ["Check the configuration and all programs of the module", "ko check"],
      ["Check YAML and the programs that it references", "ko check -f config/"],
      ["Check the YAML of a kustomization", "kubectl kustomize overlays/dev | ko check -f -"],
      [
        "Print the errors only, from JSON",
        `ko check --json | jq -r '.findings[] | select(.severity == "error").message'`,
      ],
    ],
    flags: CHECK_COMMAND_FLAGS,
    environment: MAIN_VARIABLES,
  },
  login: {
    summary: "Log in to a registry.",
    aliases: [],
    words: "SERVER",
    minWords: 1,
    maxWords: 1,
    hidesWords: true,
    about: `Stores the user and the password or token for SERVER, which is HOST or HOST:PORT, where ko, Docker and podman read it: in Docker's config.json, or in podman's auth.json if Docker has no file. If the file names a credential helper for SERVER, the password goes there instead. Other settings in the file stay.

The registry is not asked: the next push shows whether the password is right.

Registries of Google, AWS and Azure, and ghcr.io with GITHUB_TOKEN, need no login where the environment or the machine has an identity of that cloud.`,
    examples: [
      ["Log in with a token", 'echo "$TOKEN" | ko login registry.example.com -u me --password-stdin'],
      ["Log in to Docker Hub", "cat token.txt | ko login docker.io -u me --password-stdin"],
    ],
    flags: LOGIN_FLAGS,
    environment: LOGIN_VARIABLES,
  },
  logout: {
    summary: "Log out from a registry.",
    aliases: [],
    words: "SERVER",
    minWords: 1,
    maxWords: 1,
    about: `Removes the login for SERVER from the file that "ko login" writes, and from its credential helper. Succeeds if there is none.`,
    examples: [["Log out", "ko logout registry.example.com"]],
    flags: GLOBAL_FLAGS,
    environment: LOGIN_VARIABLES,
  },
  base: {
    summary: "Check, update or fetch base images.",
    aliases: [],
    words: "check | update | pull",
    minWords: 1,
    maxWords: 1,
    completes: ["check", "update", "pull"],
    about: `"ko base check" asks for the image that the tag of each base names now, and prints a line for each: old (.ko.yaml has another digest), current, unpinned (there is no digest), or untagged (there is no tag to ask for). It also names the platforms that the newer image has lost, and those of a build that it lacks. Exits with 3 if a base is old, else with 0.

"ko base update" writes NAME:TAG@DIGEST into .ko.yaml for each base that is old or unpinned, and prints the places. Nothing else in the file changes. It writes nothing if a newer image lacks a platform of a build.

"ko base pull" keeps the bases in the cache, with their layers, for builds with --offline. It takes the platforms of a build.

The bases are defaultBaseImage and baseImageOverrides, as far as they are in a registry.`,
    examples: [
      ["Pin the bases, or move them to the newest images", "ko base update"],
      ["Fail in CI if a base is old", "ko base check"],
      ["Build without a network later: ko build --offline -L .", "ko base pull"],
      ["Print the old ones from JSON", `ko base check --json | jq -r '.bases[] | select(.status == "old").base'`],
    ],
    flags: BASE_FLAGS,
    environment: MAIN_VARIABLES,
  },
  rebase: {
    summary: "Put published images on the newest image of their base.",
    aliases: [],
    words: "IMAGE...",
    minWords: 1,
    about: `Replaces the base of each image by the one that its tag names now, or by --base, and pushes the result to the repository of the image. It needs neither Go nor the sources. The result has the bytes of a "ko build" of the same program on the new base. Prints the new references, one per line, and moves no tag without --tags.

An image that is on the newest base stays as it is. One that is not exactly what ko makes on the base that it names is refused, and so are platforms that the new base lacks.`,
    examples: [
      ["Push the image on its new base, and print its digest", "ko rebase registry.example.com/team/web:v1.2.3"],
      ["Move the tag, too", "ko rebase -t v1.2.3 registry.example.com/team/web:v1.2.3"],
      ["Choose another base", "ko rebase --base cgr.dev/chainguard/static:latest registry.example.com/team/web"],
    ],
    flags: REBASE_FLAGS,
    environment: LOGIN_VARIABLES,
  },
  size: {
    summary: "Show what takes the bytes of a published image.",
    aliases: [],
    words: "IMAGE [OTHER]",
    minWords: 1,
    maxWords: 2,
    about: `Prints the bytes of base, kodata and program for each platform, compressed and not, and those of the program by module and package. With a second image, prints by how much each of them differs there.`,
    examples: [
      ["Show the largest modules and packages", "ko size registry.example.com/team/web"],
      ["See what a release has brought", "ko size registry.example.com/team/web:v1 registry.example.com/team/web:v2"],
    ],
    flags: SIZE_FLAGS,
    environment: LOGIN_VARIABLES,
  },
  cache: {
    summary: "Show or remove the cache.",
    aliases: [],
    words: "[clean]",
    maxWords: 1,
    completes: ["clean"],
    about: `Prints the directory of the cache, its size and its limit in bytes, and the number of entries, one per line. Text after # is a comment.

"ko cache clean" removes all entries, and nothing else in the directory. This is safe at any time, also while another ko runs: missing entries are made again.

The limit is 10 GB or a tenth of the disk, whichever is less. Entries that were not used for the longest time are removed first.`,
    examples: [
      ["Show the directory, the size and the limit", "ko cache"],
      ["Print the size in bytes only", "ko cache | awk '$1 == \"size:\" { print $2 }'"],
      ["Remove all entries", "ko cache clean"],
    ],
    flags: GLOBAL_FLAGS,
    environment: CACHE_VARIABLES,
  },
  doctor: {
    summary: "Check this machine: go, registry, cluster, cache.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: `Shows what this machine has and what ko would do with it: go, git, kubectl and its cluster, the Docker daemon, local clusters, the configuration file, KO_DOCKER_REPO and its registry, base images, the cache, disks, inotify, proxies and certificates.

Each line begins with ok, note (it works, but a person may want to know) or problem (a command would fail, or each build is slow). The line below says what to type. The exit code is 1 if there is a problem, else 0.

It takes at most 5 seconds. Nothing is written, built or pushed: the registry is asked for a manifest with the rights of a push. Secrets are not shown, only where they are from.`,
    examples: [
      ["Check this machine", "ko doctor"],
      ["Check it for the local daemon, and another cluster", "ko doctor -L --context staging"],
      ["Print the problems only", "ko doctor --json | jq -r '.findings[] | select(.status == \"problem\").message'"],
    ],
    flags: DOCTOR_FLAGS,
    environment: MAIN_VARIABLES,
  },
  completion: {
    summary: "Print a shell completion script.",
    aliases: [],
    words: "[bash|zsh|fish|powershell]",
    maxWords: 1,
    completes: SHELLS,
    about: `Prints a script that completes commands, flags, flag values, and the Go programs of the module. The shell defaults to bash.`,
    examples: [
      ["Bash: add to ~/.bashrc", "source <(ko completion bash)"],
      ["Zsh: add to ~/.zshrc", "source <(ko completion zsh)"],
      ["Fish", "ko completion fish > ~/.config/fish/completions/ko.fish"],
      ["PowerShell: add to $PROFILE", "ko completion powershell | Out-String | Invoke-Expression"],
    ],
    flags: GLOBAL_FLAGS,
    environment: {},
  },
  version: {
    summary: "Print the version of ko.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: "Prints the version of a release, or the commit that ko was built from.",
    examples: [],
    flags: GLOBAL_FLAGS,
    environment: {},
  },
  help: {
    summary: "Show the help of a command, or all environment variables.",
    aliases: [],
    words: "[COMMAND|environment]",
    maxWords: 1,
    completes: "command",
    about: `Shows the same as "ko COMMAND --help". "ko help environment" lists all variables that ko reads.`,
    examples: [
      ["Show the help of ko build", "ko help build"],
      ["List all environment variables", "ko help environment"],
    ],
    flags: GLOBAL_FLAGS,
    environment: {},
  },
};

/** All commands with their names, as one type. */
export function allCommands(): readonly (readonly [CommandName, Command])[] {
  const commands: Readonly<Record<CommandName, Command>> = COMMANDS;
  return Object.keys(commands)
    .filter(isCommandName)
    .map((name) => [name, commands[name]]);
}

function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}
