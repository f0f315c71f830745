/**
 * `ko init`: writes a first `.ko.yaml` for the programs of the module, with which ko builds the same images as without.
 */
import { link, rename, rm, writeFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { findConfigFile } from "./config-file.ts";
import { DEFAULT_BASE_IMAGE, loadConfig } from "./config.ts";
import { codeOf, KoError, UsageError } from "./errors.ts";
import { lookAtLink } from "./file.ts";
import { showPath } from "./go-arguments.ts";
import { choosePrograms, findPrograms, type Program } from "./go-programs.ts";
import { BuildSetups } from "./go-setup.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { formatSchema } from "./settings-schema.ts";

export interface InitOptions {
  readonly host: Host;
  readonly log: Log;
  /** `--yes` */
  readonly isAgreed: boolean;
}

const CONFIG_FILE = ".ko.yaml";
/** Editors take the schema from here. `.ko.json` would be a configuration. */
const SCHEMA_FILE = ".ko.schema.json";

/** Systems without hard links. */
const NO_LINKS: ReadonlySet<string> = new Set(["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"]);

/**
 * Writes `.ko.yaml` and its schema into the working directory, after a question on the terminal.
 *
 * @throws {UsageError} If there is a configuration file, or no terminal for the question.
 * @throws {KoError} If there is no program, or a file cannot be written: then none is left behind.
 */
export async function initConfig({ host, isAgreed, log }: InitOptions): Promise<void> {
  await refuseOther(host);
  if (!isAgreed && !(host.stdinIsTerminal && host.stderrIsTerminal)) {
    throw new UsageError(`Cannot ask whether to write ${CONFIG_FILE}: there is no terminal`, {
      hint: "Type: ko init --yes",
    });
  }
  const text = formatConfig(await findAll(host, log), host.cwd);
  if (!isAgreed) {
    host.err(`${text}\nWrite this to ${CONFIG_FILE}, and its schema to ${SCHEMA_FILE}? [Y/n] `);
    const answer = await host.readLine();
    if (!/^(?:y|yes|)$/i.test(answer?.trim() ?? "n")) return log.info("Nothing was written.");
  }
  const schema = join(host.cwd, SCHEMA_FILE);
  const hasSchema = lookAtLink(schema) !== undefined;
  if (!hasSchema) await writeNew(schema, formatSchema());
  try {
    await writeNew(join(host.cwd, CONFIG_FILE), text);
  } catch (error) {
    if (!hasSchema) await rm(schema, { force: true });
    throw error;
  }
  log.info(hasSchema ? `Wrote ${CONFIG_FILE}; ${SCHEMA_FILE} was there` : `Wrote ${CONFIG_FILE} and ${SCHEMA_FILE}`);
}

/** The text of a first `.ko.yaml`. Each setting in it has its default. */
export function formatConfig(programs: readonly Program[], cwd: string): string {
  const names = programs.map(({ importPath }) => posix.basename(importPath.replace(/\/v\d+$/, "")));
  const entries = programs.map(({ dir, importPath }, i) => {
    const name = names[i] ?? "";
    const path = showPath(dir, cwd);
    // Programs with one name are told apart by their folders.
    const id = names.filter((each) => each === name).length > 1 ? path.replace(/^\.\//, "") || importPath : name;
    const example = i > 0 ? "" : EXAMPLE;
    return `  - id: ${quote(id)}\n    main: ${quote(path)}\n${example}`;
  });
  const [first = ""] = programs.map(({ importPath }) => importPath);
  return `# yaml-language-server: $schema=${SCHEMA_FILE}
#
# The configuration of ko. It changes nothing yet: every setting has its default.
# "ko config" shows the settings that hold, and "ko config PROGRAM" those of a program.

# The image that programs are added to. ko.builtin/static needs no registry, scratch is empty.
defaultBaseImage: ${DEFAULT_BASE_IMAGE}

# Other base images for single programs.
# baseImageOverrides:
#   ${first}: gcr.io/distroless/base:nonroot

# The platforms of images without --platform.
# defaultPlatforms: [linux/amd64, linux/arm64]

# How each program is compiled.
builds:
${entries.join("")}`;
}

const EXAMPLE = `    # env: [CGO_ENABLED=0]
    # flags: [-tags=netgo]
    # ldflags: [-s, -w, "-X main.version={{ .Git.ShortCommit }}"]
`;

async function refuseOther(host: Host): Promise<void> {
  const place = host.env["KO_CONFIG_PATH"];
  if (place) {
    throw new UsageError(`Cannot write ${CONFIG_FILE}: ko reads KO_CONFIG_PATH="${place}" instead`, {
      hint: "Type: unset KO_CONFIG_PATH",
    });
  }
  const found = await findConfigFile(host);
  if (found !== undefined) throw exists(found);
}

function exists(path: string): UsageError {
  return new UsageError(`Cannot write ${CONFIG_FILE}: ${path} exists, and ko init overwrites nothing`, {
    hint: 'Type "ko config" to see the settings that hold.',
  });
}

async function findAll(host: Host, log: Log): Promise<readonly Program[]> {
  const config = await loadConfig(host);
  const go = { host, log, go: config.goPath };
  const setups = new BuildSetups({ ...go, config });
  return choosePrograms(await findPrograms(["./..."], { ...go, setups, platform: undefined, isShallow: true }));
}

/** Writes a file that does not exist in one step. */
async function writeNew(path: string, text: string): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  try {
    await writeFile(temporary, text, { mode: 0o644 });
    // Unlike a rename, a link fails if another process has made the file meanwhile.
    await link(temporary, path);
  } catch (cause) {
    if (codeOf(cause) === "EEXIST") throw exists(path);
    if (!NO_LINKS.has(codeOf(cause) ?? "")) throw new KoError(`Cannot write "${path}"`, { cause });
    if (lookAtLink(path) !== undefined) throw exists(path);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** The text as a value of YAML. */
function quote(text: string): string {
  const isPlain = /^[A-Za-z./_][\w./+-]*$/.test(text) && !/^(?:y|n|yes|no|on|off|true|false|null)$/i.test(text);
  return isPlain ? text : JSON.stringify(text);
}
