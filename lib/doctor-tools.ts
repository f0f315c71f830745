/**
 * The programs that ko runs, for `ko doctor`: go and its module, git, kubectl and its cluster.
 *
 * Nothing is downloaded: go is asked with `GOTOOLCHAIN=local`, so that it does not fetch another version of itself.
 */
import { existsSync } from "node:fs";
import { delimiter } from "node:path";
import { readGoPath } from "./config.ts";
import type { CheckContext, Finding } from "./doctor-check.ts";
import { CommandError, KoError, printable } from "./errors.ts";
import { buildEnvironment, DEFAULT_PLATFORM, goMessages, goPath, hintFor, runGo, settingsOf } from "./go.ts";
import { kindOfGo, maySwitch, readGoAnswer } from "./go-command.ts";
import { explainNoStamp, findWorkTree } from "./git.ts";
import { installHint, type RunResult } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import { findKubectl } from "./kubectl.ts";
import { redactUrl } from "./url.ts";

/** The minor version of the oldest Go 1 whose `go list -json` takes fields. */
const OLDEST_GO = 19;
/** The hint if there is no Go that can be used. */
export const INSTALL_GO = "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.";
/** Milliseconds that the API server has: less than the check, so that the line can name the context. */
const API_SERVER_MS = 3300;

/** The go command, and the module of the working directory. */
export async function checkGo({ host, log }: CheckContext): Promise<readonly Finding[]> {
  const name = "go";
  const go = readGoPath(host.env);
  const env = buildEnvironment(DEFAULT_PLATFORM, host.env, { GOTOOLCHAIN: "local" });
  const options = { host, log, go, cwd: host.cwd, env };
  const { values } = await readGoAnswer(options).catch(addReason);
  const path = goPath(options) ?? go;
  const version = values["GOVERSION"] ?? "";
  const settings = settingsOf({ ...options, env: host.env });
  const toolchain = settings.get("GOTOOLCHAIN") || "auto";
  const facts = { path, version, goroot: values["GOROOT"] ?? "", toolchain };
  const minor = /^go1\.(\d+)/.exec(version)?.[1];
  if (version === "" || (minor !== undefined && Number(minor) < OLDEST_GO)) {
    const message = `${version || "an old Go"} at ${path} is too old: ko needs Go 1.${OLDEST_GO} or later`;
    return [{ name, status: "problem", message, hint: INSTALL_GO, facts }];
  }
  const isScript = kindOfGo(path, { host, settings }) === "script";
  const found: Finding = isScript
    ? {
        name,
        status: "note",
        message: `${version} at ${path}, a script: ko cannot tell what it does, so each build compiles anew`,
        hint: `export KO_GO_PATH=${values["GOROOT"]}/bin/go`,
        facts,
      }
    : { name, status: "ok", message: `${version} at ${path}, GOTOOLCHAIN=${toolchain}`, facts };
  const fetches = maySwitch({ get: () => toolchain });
  return [found, ...(await readModule({ ...options, env: { ...env, GOPROXY: "off" } }, { fetches, toolchain }))];
}

/** Adds the words of go to the failure of `go env`. */
function addReason(error: unknown): never {
  const said = error instanceof CommandError ? goMessages(error.stderr) : "";
  if (!(error instanceof KoError) || said === "") throw error;
  throw new KoError(`${error.message}: ${said.replace(/^go: /, "")}`, { hint: hintFor(said) });
}

async function readModule(
  options: Parameters<typeof runGo>[1],
  { fetches, toolchain }: { readonly fetches: boolean; readonly toolchain: string },
): Promise<readonly Finding[]> {
  const name = "module";
  try {
    const { stdout } = await runGo(["list", "-m", "-f", "{{.Path}}\t{{.GoVersion}}\t{{.GoMod}}"], options);
    const modules = new TextDecoder()
      .decode(stdout)
      .split("\n")
      .flatMap((line) => {
        const [path = "", version = "", file = ""] = line.split("\t");
        return file === "" ? [] : [{ path, version, file }];
      });
    const [first] = modules;
    if (first === undefined) return [noModule(name)];
    const more = modules.length > 1 ? ` and ${modules.length - 1} more of its workspace` : "";
    const facts = { path: first.path, version: first.version, file: first.file };
    return [{ name, status: "ok", message: `${first.path}, go ${first.version} (${first.file})${more}`, facts }];
  } catch (error) {
    if (!(error instanceof CommandError) || error.code === undefined) throw error;
    const said = printable(error.stderr.trim().replace(/^go: /, ""), 400);
    if (said.includes("go.mod file not found")) return [noModule(name)];
    const wanted = /requires go >= (\S+)/.exec(said)?.[1];
    if (wanted !== undefined && fetches) {
      const message = `${said.replace(/; GOTOOLCHAIN=local/, "")}: go fetches ${wanted}, as GOTOOLCHAIN=${toolchain} says`;
      return [
        { name, status: "note", message, hint: `Install it beforehand: go install golang.org/dl/go${wanted}@latest` },
      ];
    }
    return [{ name, status: "problem", message: said, hint: hintFor(said) ?? "Correct the go.mod file." }];
  }
}

function noModule(name: string): Finding {
  const message = "there is no go.mod in the working directory or above";
  return { name, status: "note", message, hint: "Run ko where the go.mod file is, or make one: go mod init" };
}

/** git, and whether it trusts the work tree: go asks it for the commit that it stamps into programs. */
export async function checkGit({ host }: CheckContext): Promise<readonly Finding[]> {
  const name = "git";
  const path = host.findProgram("git");
  const tree = findWorkTree(host.cwd);
  if (path === undefined) {
    const why = tree.kind === "git" ? "programs get no commit, templates no .Git" : "only work trees of git need it";
    return [{ name, status: "note", message: `it is not on PATH: ${why}`, hint: installHint("git") }];
  }
  const { stdout } = await host.run([path, "--version"]);
  const version = printable(
    new TextDecoder()
      .decode(stdout)
      .replace(/^git version /, "")
      .trim(),
    100,
  );
  const facts = { path, version, ...(tree.kind === "git" ? { root: tree.root } : {}) };
  const problem = tree.kind === "git" ? await explainNoStamp(tree.root, { host, env: host.env }) : undefined;
  if (problem !== undefined && tree.kind === "git") {
    const { trust, why } = problem;
    const message = `${version} at ${path} cannot read "${tree.root}": ${why}`;
    return [{ name, status: trust === undefined ? "note" : "problem", message, hint: trust, facts }];
  }
  const where = tree.kind === "git" ? `, work tree ${tree.root}` : "";
  return [{ name, status: "ok", message: `${version} at ${path}${where}`, facts }];
}

/** kubectl, its context, and whether the API server answers. @param flags those of kubectl that the user gave */
export async function checkKubectl({ host }: CheckContext, flags: readonly string[]): Promise<readonly Finding[]> {
  const name = "kubectl";
  let path: string;
  try {
    path = findKubectl(host);
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    const message = "it is not on PATH: ko apply, create, delete and run need it";
    return [{ name, status: "note", message, hint: error.hint }];
  }
  // Else it keeps answers of the server in HOME.
  const noCache = `--cache-dir=${host.platform === "win32" ? "NUL" : "/dev/null"}`;
  const ask = (...args: readonly string[]): Promise<Pick<RunResult, "stdout" | "stderr">> =>
    host
      .run([path, ...args, "-o", "json", noCache, ...flags], { anyExitCode: true, timeout: API_SERVER_MS })
      .catch((error: unknown) => {
        if (!(error instanceof CommandError)) throw error;
        return { stdout: new Uint8Array(0), stderr: error.message.replace(`Cannot run ${path}: `, "") };
      });
  const [view, answer] = await Promise.all([ask("config", "view", "--minify"), ask("version")]);
  const versions = readObject(answer.stdout);
  const version = textAt(versions, "clientVersion", "gitVersion");
  const serverVersion = textAt(versions, "serverVersion", "gitVersion");
  const config = readObject(view.stdout);
  const context = textAt(config, "current-context");
  const place = version === "" ? path : `${version} at ${path}`;
  const facts = { path, version };
  if (context === "" && serverVersion === "") {
    return [
      { name, facts, ...explainNoContext(place, { error: lastLine(view.stderr), kubeconfig: host.env["KUBECONFIG"] }) },
    ];
  }
  const server = textAt(firstOf(config, "clusters"), "cluster", "server");
  const namespace = textAt(firstOf(config, "contexts"), "context", "namespace") || "default";
  const shown = server === "" ? "the API server of this cluster" : `the API server ${redactUrl(server)}`;
  const all = { ...facts, context, namespace, server: server === "" ? "" : redactUrl(server), serverVersion };
  const where = context === "" ? "" : `context ${context}, namespace ${namespace}, `;
  if (serverVersion === "") {
    const why = lastLine(answer.stderr);
    const message = `${place}: ${where}${shown} does not answer: ${why}`;
    return [{ name, status: "problem", message, hint: clusterHint(context, why), facts: all }];
  }
  return [{ name, status: "ok", message: `${place}, ${where}${shown} has ${serverVersion}`, facts: all }];
}

function explainNoContext(
  place: string,
  { error, kubeconfig = "" }: { readonly error: string; readonly kubeconfig: string | undefined },
): Pick<Finding, "status" | "message" | "hint"> {
  const files = kubeconfig.split(delimiter).filter((file) => file !== "");
  if (files.length > 0 && !files.some((file) => existsSync(file))) {
    const message = `${place}: KUBECONFIG names "${files.join(delimiter)}", which does not exist`;
    return { status: "problem", message, hint: "unset KUBECONFIG" };
  }
  if (error.startsWith("no answer")) {
    return { status: "problem", message: `${place}: ${error}`, hint: "kubectl version" };
  }
  if (/current-context must exist/.test(error)) {
    const message = `${place} has no context, and so no cluster: ko apply, create, delete and run need one`;
    return { status: "note", message, hint: "kubectl config use-context NAME, or pass --context NAME" };
  }
  const hint = /context/.test(error)
    ? "kubectl config get-contexts"
    : "Correct that file, or set KUBECONFIG to another.";
  return { status: "problem", message: `${place}: ${error.replace(/^error: /, "")}`, hint };
}

function clusterHint(context: string, why: string): string {
  if (/x509|certificate|Unauthorized|credentials|logged in/i.test(why)) {
    return "Get the kubeconfig of that cluster anew, or choose another: kubectl config use-context NAME";
  }
  if (context === "minikube") return "minikube start";
  const k3d = /^k3d-(.+)$/.exec(context)?.[1];
  if (k3d !== undefined) return `k3d cluster start ${k3d}`;
  return "Start the cluster, or choose another: kubectl config use-context NAME";
}

function readObject(bytes: Uint8Array): unknown {
  return parseJson(new TextDecoder().decode(bytes));
}

function textAt(value: unknown, ...keys: readonly string[]): string {
  let at = value;
  for (const key of keys) at = isObject(at) ? at[key] : undefined;
  return typeof at === "string" ? printable(at, 300) : "";
}

function firstOf(value: unknown, key: string): unknown {
  const list = isObject(value) ? value[key] : undefined;
  return Array.isArray(list) ? list[0] : undefined;
}

function lastLine(text: string): string {
  return printable(text.trim().split("\n").at(-1) ?? "", 400);
}
