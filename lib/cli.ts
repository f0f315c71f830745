/**
 * Runs the command that a command line asks for.
 *
 * All flags are checked before any input is read. The modules of a command are loaded when it runs.
 */
import { isWatching, type Of, type Run } from "./cli-building.ts";
import { logLevelOf, parseCommandLine } from "./cli-parse.ts";
import { UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { styleOf } from "./log-style.ts";
import { createLog } from "./log.ts";

/**
 * @param argv the words after the program's name
 * @returns the exit code: 0, or the exit code of kubectl if it ran
 * @throws {KoError} For every failure that a user can cause.
 */
export async function runCommandLine(argv: readonly string[], outside: Host): Promise<number> {
  const [hidden, ...words] = argv;
  if (hidden === "__complete") {
    const { complete, formatCompletion } = await import("./cli-completion.ts");
    return print(outside, formatCompletion(await complete(words, outside)));
  }
  const auth = findAuth(argv);
  if (auth?.isOwn === true) return (await import("./cli-auth.ts")).runAuth(auth.words, outside);
  const invocation = parseCommandLine(auth?.words ?? argv);
  if (invocation.command === "help") {
    const { formatTopic } = await import("./cli-help.ts");
    return print(outside, formatTopic(invocation.topic, outside.stdoutColumns));
  }
  const host = await hostFor(invocation.flags, outside);
  // Asking for the terminal loads a module of Bun that few commands need.
  const style = { warning: (text: string): string => styleOf(host).warning(text) };
  const log = createLog(logLevelOf(invocation.flags), (text) => host.err(text), { style });
  switch (invocation.command) {
    case "build":
    case "resolve":
    case "apply":
    case "create":
    case "run": {
      const { readReportFlags } = await import("./cli-options.ts");
      const flags = readReportFlags(invocation.flags);
      if (!isWatching(invocation)) return (await import("./cli-once.ts")).runOnce(invocation, { host, flags });
      return (await import("./cli-watch.ts")).watch(invocation, { host, log, flags });
    }
    case "delete": {
      const { runKubectl } = await import("./kubectl.ts");
      refuseFile(invocation.positionals);
      return runKubectl(host, ["delete", ...invocation.positionals], { log, stdin: "inherit" });
    }
    case "config": {
      const { runConfig } = await import("./settings-text.ts");
      const { flags, given, positionals: args } = invocation;
      return print(host, await runConfig({ flags, given, args }, { host, log }));
    }
    case "init": {
      const { initConfig } = await import("./settings-init.ts");
      await initConfig({ host, log, isAgreed: invocation.flags.yes });
      return 0;
    }
    case "check":
      return check(invocation, { host, log });
    case "login": {
      const { login } = await import("./registry-login.ts");
      const [server = ""] = invocation.positionals;
      await login(server, { context: { host, log }, flags: invocation.flags });
      return 0;
    }
    case "logout": {
      const { logout } = await import("./registry-login.ts");
      const [server = ""] = invocation.positionals;
      await logout(server, { host, log });
      return 0;
    }
    case "base":
      return base(invocation, { host, log });
    case "rebase":
      return rebase(invocation, { host, log });
    case "size":
      return size(invocation, { host, log });
    case "cache": {
      const { runCacheCommand } = await import("./cache-clean.ts");
      return print(host, runCacheCommand(invocation.positionals, { host, log }));
    }
    case "doctor":
      return doctor(invocation, { host, log });
    case "completion":
      return print(host, (await import("./cli-completion.ts")).completionScript(invocation.positionals[0]));
    case "version":
      return print(host, `${await (await import("./version.ts")).koVersion(host)}\n`);
  }
}

/** The host, with the environment variables that flags such as `--config` and `--offline` set. */
async function hostFor(
  flags: { readonly verbose: boolean; readonly config?: string; readonly offline?: boolean; readonly profile?: string },
  host: Host,
): Promise<Host> {
  const { config = "", offline = false, profile = "" } = flags;
  const named = {
    ...(config === "" ? {} : { KO_CONFIG_PATH: config }),
    ...(profile === "" ? {} : { KO_PROFILE: profile }),
  };
  const isChanged = config !== "" || profile !== "";
  const chosen = isChanged ? { ...host, env: { ...host.env, ...named } } : host;
  if (!offline && !host.env["KO_OFFLINE"]) return chosen;
  return { ...chosen, env: (await import("./offline.ts")).offlineEnvironment(chosen.env) };
}

/** @throws {UsageError} If the only word is the name of a file or folder, which kubectl takes for that of an object. */
function refuseFile(words: readonly string[]): void {
  const [word = "", another] = words;
  if (another !== undefined || !/\/$|\.(?:ya?ml|json)$/.test(word)) return;
  throw new UsageError(`Cannot delete "${word}": that is not the name of an object`, {
    hint: `If it names YAML: ko delete -f ${word}`,
  });
}

/**
 * The words after `ko auth`, a hidden command of the original, with the flags before it. `ko auth login` and `logout` are
 * `ko login` and `logout`; the others are its own.
 */
function findAuth(argv: readonly string[]): { readonly words: readonly string[]; readonly isOwn: boolean } | undefined {
  const [first, second, ...rest] = argv;
  if (first === "help" && second === "auth") return { words: [...rest, "--help"], isOwn: true };
  const at = argv.findIndex((word) => !/^-(?:[vqh]+|-(?:verbose|quiet|help)(?:=.*)?)$/.test(word));
  if (argv[at] !== "auth") return undefined;
  const words = [...argv.slice(0, at), ...argv.slice(at + 1)];
  const name = words.find((word) => !word.startsWith("-"));
  return { words, isOwn: name !== "login" && name !== "logout" };
}

async function check({ flags, positionals }: Of<"check">, context: Pick<Run, "host" | "log">): Promise<number> {
  const [{ runCheck }, { chooseNaming }] = await Promise.all([import("./check.ts"), import("./cli-options.ts")]);
  const { naming, warnings } = chooseNaming(flags);
  for (const warning of warnings) context.log.warn(warning);
  const { filename: files, json, local, platform: platforms, recursive, selector } = flags;
  return runCheck({ files, json, local, naming, platforms, recursive, selector, args: positionals }, context);
}

/** `base`: prints how old the bases are, or where newer ones were written. */
async function base({ flags, positionals: words }: Of<"base">, context: Pick<Run, "host" | "log">): Promise<number> {
  const { runBases } = await import("./bases.ts");
  const { "insecure-registry": insecureRegistry, json, platform: platforms } = flags;
  const { exitCode, text } = await runBases({ words, json, platforms, insecureRegistry }, context);
  await context.host.out(text);
  return exitCode;
}

/** `rebase`: prints the references of the images on their new bases. */
async function rebase(
  { flags, given, positionals: words }: Of<"rebase">,
  context: Pick<Run, "host" | "log">,
): Promise<number> {
  const { runRebase } = await import("./rebase.ts");
  const { base: name, "insecure-registry": insecureRegistry, sbom, tags } = flags;
  const request = { words, base: name, tags, insecureRegistry, sbom, isSbomGiven: given.has("sbom") };
  return print(context.host, await runRebase(request, context));
}

/** `size`: prints what takes the bytes of an image. */
async function size({ flags, positionals: words }: Of<"size">, context: Pick<Run, "host" | "log">): Promise<number> {
  const { runSize } = await import("./size.ts");
  const { "insecure-registry": insecureRegistry, json } = flags;
  return print(context.host, await runSize({ words, json, insecureRegistry }, context));
}

async function print(host: Host, text: string): Promise<number> {
  await host.out(text);
  return 0;
}

/** `doctor`: prints what this machine has. */
async function doctor({ flags, given }: Of<"doctor">, { host, log }: Pick<Run, "host" | "log">): Promise<number> {
  const [{ kubectlArguments }, { runDoctor }] = await Promise.all([import("./kubectl.ts"), import("./doctor.ts")]);
  const { json, local, "insecure-registry": insecureRegistry } = flags;
  const kubectl = kubectlArguments(flags, given);
  const { exitCode, text } = await runDoctor(host, { log, kubectl, local, insecureRegistry, json });
  await host.out(text);
  return exitCode;
}
