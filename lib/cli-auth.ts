/**
 * The hidden command `ko auth` of the original: `get` answers as a credential helper, `token` fetches a token for other
 * programs. `login` and `logout` are those of `ko`.
 *
 * Rules: docs/rules.md B1, B6. https://github.com/docker/docker-credential-helpers#usage
 */
import { GLOBAL_FLAGS } from "./cli-flag-groups.ts";
import { type FlagTable, type FlagValues, formatFlags, helpFlag, type ParsedFlags, parseFlags } from "./cli-flags.ts";
import { DEFAULT_COLUMNS } from "./cli-help.ts";
import { logLevelOf } from "./cli-parse.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { encodeGoJson, object } from "./json.ts";
import { styleOf } from "./log-style.ts";
import { createLog, type Log } from "./log.ts";
import { DOCKER_HUB, parseRepository, type Repository, whyBadHost } from "./reference.ts";
import { FOR_PUSH } from "./registry-credential.ts";

const TOKEN_FLAGS = {
  header: { kind: "bool", short: "H", default: false, help: "Print the token as a header, for curl." },
  mount: {
    kind: "list",
    short: "m",
    default: [],
    placeholder: "REPO",
    help: "Repositories of the same registry that the token can pull from too.",
  },
  push: { kind: "bool", default: false, help: "Ask for the right to push." },
} as const;

interface AuthCommand {
  readonly summary: string;
  readonly words: string;
  readonly example: string;
  readonly flags: FlagTable;
}

const COMMANDS = {
  get: {
    summary: "Print the login for a registry as JSON, from the files and credential helpers of Docker and podman.",
    words: "[SERVER]",
    example: "echo registry.example.com | ko auth get",
    flags: {},
  },
  login: {
    summary: 'The same as "ko login".',
    words: "SERVER",
    example: 'echo "$TOKEN" | ko auth login registry.example.com -u me --password-stdin',
    flags: {},
  },
  logout: {
    summary: 'The same as "ko logout".',
    words: "SERVER",
    example: "ko auth logout registry.example.com",
    flags: {},
  },
  token: {
    summary: "Print a token of the registry's token server, as JSON or as a header.",
    words: "REPO",
    example: 'curl -H "$(ko auth token -H ghcr.io/me/app)" https://ghcr.io/v2/me/app/tags/list',
    flags: TOKEN_FLAGS,
  },
} as const satisfies Readonly<Record<string, AuthCommand>>;

/** The words of a credential helper that has no login: programs compare them. */
const NOT_FOUND = "credentials not found in native keychain\n";
const MAX_SERVER_BYTES = 4096;

/**
 * @param argv the words after `ko auth`; `login` and `logout` are not among them, unless for help
 * @returns the exit code
 * @throws {KoError} For every failure that a user can cause.
 */
export async function runAuth(argv: readonly string[], host: Host): Promise<number> {
  const { help, positionals } = parseFlags({ ...GLOBAL_FLAGS, ...TOKEN_FLAGS }, argv, { command: "ko auth" });
  const [name, ...others] = positionals;
  if (name === undefined) return print(host, formatAuthHelp());
  if (!isAuthCommand(name)) {
    const nearest = findNearest(name, Object.keys(COMMANDS));
    const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
    throw new UsageError(`Cannot run "ko auth ${name}": ko auth has no such command${near}`, {
      hint: `Type "ko auth --help".`,
    });
  }
  if (help) return print(host, formatAuthHelp(name));
  switch (name) {
    case "token":
      return printToken(argv, host);
    default: {
      const parsed = parseFlags(GLOBAL_FLAGS, argv, { command: `ko auth ${name}` });
      return printLogin(others, { host, log: logOf(parsed.values, host) });
    }
  }
}

/** `get`: prints the login as credential helpers do. */
async function printLogin(
  words: readonly string[],
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<number> {
  if (words.length > 1) throw new UsageError('Cannot run "ko auth get": it takes at most 1 argument', EXAMPLE.get);
  const typed = words[0] ?? new TextDecoder().decode(await host.readStdin(MAX_SERVER_BYTES)).trim();
  const { FileKeychain, normalKey } = await import("./registry-keychain-file.ts");
  const server = normalKey(typed).split("/", 1)[0] ?? "";
  if (server === "" || typed.includes("@") || whyBadHost(server) !== undefined) {
    throw new UsageError('Cannot run "ko auth get": wanted HOST[:PORT] as its argument or on stdin', EXAMPLE.get);
  }
  const registry = server === "docker.io" ? DOCKER_HUB : server;
  const found = await new FileKeychain({ host, log }).find({ host: registry, path: "" }, FOR_PUSH);
  if (found === undefined) {
    await host.out(NOT_FOUND);
    return 1;
  }
  const { credential } = found;
  // The protocol of credential helpers has no form for a token that goes to the registry as it is.
  if (credential.kind === "bearer") return print(host, "{}\n");
  const [username, secret] =
    credential.kind === "basic" ? [credential.username, credential.password] : ["<token>", credential.token];
  return printJson(
    host,
    object([
      ["Username", username],
      ["Secret", secret],
    ]),
  );
}

/** `token`: prints what the token server gave. */
async function printToken(argv: readonly string[], host: Host): Promise<number> {
  const { positionals, values } = readTokenFlags(argv);
  const [, name, surplus] = positionals;
  if (name === undefined || surplus !== undefined) {
    throw new UsageError('Cannot run "ko auth token": it takes exactly 1 argument, REPO', EXAMPLE.token);
  }
  const log = logOf(values, host);
  const repository = parseRepository(name);
  const from = values.mount.map((text) => readMount(text, repository));
  const { loadConfig } = await import("./config.ts");
  const { registries: rules } = await loadConfig(host);
  const [{ Registry }, { createKeychain }, { koVersion }] = await Promise.all([
    import("./registry.ts"),
    import("./registry-keychain.ts"),
    import("./version.ts"),
  ]);
  await using registry = new Registry({
    keychain: createKeychain(host, log),
    log,
    signal: host.signal,
    userAgent: `ko/${await koVersion(host)}`,
    insecureHosts: [],
    rules,
    env: host.env,
  });
  const token = await registry.token(repository, { push: values.push, from });
  if (values.header) return print(host, `Authorization: Bearer ${token.value}`);
  return printJson(
    host,
    new Map<string, unknown>([
      ["token", token.value],
      ["refresh_token", token.refreshToken ?? ""],
      ["expires_in", token.expiresIn],
    ]),
  );
}

type TokenFlags = ParsedFlags<typeof TOKEN_FLAGS & typeof GLOBAL_FLAGS>;

function readTokenFlags(argv: readonly string[]): TokenFlags {
  return parseFlags({ ...TOKEN_FLAGS, ...GLOBAL_FLAGS }, argv, { command: "ko auth token" });
}

function readMount(text: string, { host }: Repository): string {
  const mounted = parseRepository(text);
  if (mounted.host === host) return mounted.path;
  throw new UsageError(`Cannot use --mount="${text}": it is not in ${host}`);
}

const hintFor = (name: AuthName): { readonly hint: string } => ({ hint: `For example: ${COMMANDS[name].example}` });

/** A hint for each command. */
const EXAMPLE = { get: hintFor("get"), token: hintFor("token") };

type AuthName = keyof typeof COMMANDS;

function isAuthCommand(name: string): name is AuthName {
  return Object.hasOwn(COMMANDS, name);
}

function logOf(flags: FlagValues<typeof GLOBAL_FLAGS>, host: Host): Log {
  return createLog(logLevelOf(flags), (text) => host.err(text), { style: styleOf(host) });
}

function formatAuthHelp(only?: AuthName): string {
  const commands = Object.keys(COMMANDS).filter(isAuthCommand);
  const sections = (only === undefined ? commands : [only]).flatMap((name) => {
    const { example, flags, summary, words } = COMMANDS[name];
    const shown = Object.keys(flags).length === 0 ? [] : ["", formatFlags(flags, DEFAULT_COLUMNS)];
    return [`  ko auth ${name} ${words}`, `      ${summary}`, `      For example: ${example}`, ...shown, ""];
  });
  return [
    "Logins and tokens for other programs.",
    "",
    "Usage:",
    ...sections,
    "Global flags:",
    formatFlags({ ...helpFlag(), ...GLOBAL_FLAGS }, DEFAULT_COLUMNS),
    "",
  ].join("\n");
}

async function printJson(host: Host, fields: ReadonlyMap<string, unknown>): Promise<number> {
  return print(host, `${new TextDecoder().decode(encodeGoJson(fields))}\n`);
}

async function print(host: Host, text: string): Promise<number> {
  await host.out(text);
  return 0;
}
