/**
 * The settings of the Go tool, read in its order: the environment, the file of `go env -w`, `go.env` of the Go installation.
 *
 * Rules: docs/rules.md F1. A go command that chooses another installation by itself is asked
 * (go-command.ts).
 */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { look, realPath } from "./file.ts";

export interface ReadSettingsOptions {
  /** Absolute path of the go command; undefined if there is none. */
  readonly go: string | undefined;
  /** The environment of go. */
  readonly env: Readonly<Record<string, string>>;
  readonly platform: string;
  /** Absolute: the working directory of go. */
  readonly cwd: string;
}

export interface GoSettings {
  /** The Go installation that go starts with; undefined if the files do not tell. */
  readonly goroot: string | undefined;
  /** Absolute: the files that settings come from, existing or not. */
  readonly files: readonly string[];
  /** The value of a variable; empty if it is not set. */
  get(name: string): string;
  /** The file of a setting that the environment does not have; undefined if it is set there, or nowhere. */
  fileOf(name: string): string | undefined;
}

type Lines = ReadonlyMap<string, string>;

const NO_LINES: Lines = new Map();

/** Reads the settings that go has in a folder with an environment. */
export function readSettings({ cwd, env, go, platform }: ReadSettingsOptions): GoSettings {
  const name = settingsFile(env, platform);
  const userFile = name === undefined ? undefined : resolve(cwd, name);
  const user = userFile === undefined ? NO_LINES : readLines(userFile);
  // The user's file wins here, though the environment wins everywhere else.
  const named = user.get("GOROOT") || env["GOROOT"];
  const goroot = named ? resolve(cwd, named) : findInstallation(go);
  const ownFile = goroot === undefined ? undefined : join(goroot, "go.env");
  const own = ownFile === undefined ? NO_LINES : readLines(ownFile, { isFirst: true });
  const get = (key: string): string => {
    if (env[key]) return env[key];
    if (key === "GOROOT") return goroot ?? "";
    return user.get(key) ?? own.get(key) ?? "";
  };
  return {
    goroot: env["GOROOT"] ? resolve(cwd, env["GOROOT"]) : goroot,
    files: [userFile, ownFile].filter((file) => file !== undefined),
    get,
    fileOf: (key) => (env[key] ? undefined : user.has(key) ? userFile : own.has(key) ? ownFile : undefined),
  };
}

/** Returns the path of the settings file of `go env -w` (`os.UserConfigDir`); undefined if there is none. */
export function settingsFile(env: Readonly<Record<string, string>>, platform: string): string | undefined {
  if (env["GOENV"]) return env["GOENV"] === "off" ? undefined : env["GOENV"];
  const home = env["HOME"];
  const xdg = env["XDG_CONFIG_HOME"];
  let folder: string | undefined;
  if (platform === "win32") folder = env["APPDATA"] ?? env["AppData"];
  else if (platform === "darwin") folder = home && join(home, "Library", "Application Support");
  // A relative path is an error for go, which then has no file.
  else if (xdg) folder = isAbsolute(xdg) ? xdg : undefined;
  else folder = home && join(home, ".config");
  return folder ? join(folder, "go", "env") : undefined;
}

/** The settings in a file. @param options.isFirst true if of equal names the first one counts, not the last */
function readLines(file: string, { isFirst }: { readonly isFirst: boolean } = { isFirst: false }): Lines {
  const found = new Map<string, string>();
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return NO_LINES;
  }
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    const name = line.slice(0, equals);
    if (equals > 0 && /^[A-Z]/.test(line) && !(isFirst && found.has(name))) found.set(name, line.slice(equals + 1));
  }
  return found;
}

/** The Go installation that a go command lies in: it has the folder pkg/tool. */
function findInstallation(go: string | undefined): string | undefined {
  if (go === undefined) return undefined;
  // A go that was compiled on another system lies one folder deeper.
  const folders = [realPath(go) ?? go].flatMap((path) => [dirname(dirname(path)), dirname(dirname(dirname(path)))]);
  return folders.find((folder) => look(join(folder, "pkg", "tool"))?.isDirectory() === true);
}
