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
import { hintFor } from "./go-hints.ts";
import { buildEnvironment, DEFAULT_PLATFORM, goMessages, goPath, runGo, settingsOf } from "./go.ts";
import { kindOfGo, maySwitch, readGoAnswer } from "./go-command.ts";
import { explainNoStamp, findWorkTree } from "./git.ts";
import { installHint } from "./host.ts";
import { parseJson } from "./json.ts";
import { findKubectl } from "./kubectl.ts";
import { askKubectl, clusterHint, lastLine, readContext, shownAt } from "./kubectl-cluster.ts";

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
  const asked = [noCache, ...flags];
  const [context, answer] = await Promise.all([
    readContext(host, asked, { timeout: API_SERVER_MS }),
    askKubectl(host, ["version", "--output=json", ...asked], { timeout: API_SERVER_MS }),
  ]);
  const versions = parseJson(new TextDecoder().decode(answer.stdout));
  const version = shownAt(versions, "clientVersion", "gitVersion");
  const serverVersion = shownAt(versions, "serverVersion", "gitVersion");
  const place = version === "" ? path : `${version} at ${path}`;
  const facts = { path, version };
  if (context.name === "" && serverVersion === "") {
    const { KUBECONFIG: kubeconfig } = host.env;
    return [{ name, facts, ...explainNoContext(place, { error: context.complaint, kubeconfig }) }];
  }
  const { server, namespace = "default" } = context;
  const shown = server === "" ? "the API server of this cluster" : `the API server ${server}`;
  const all = { ...facts, context: context.name, namespace, server, serverVersion };
  const where = context.name === "" ? "" : `context ${context.name}, namespace ${namespace}, `;
  if (serverVersion === "") {
    const why = lastLine(answer.stderr);
    const message = `${place}: ${where}${shown} does not answer: ${why}`;
    return [{ name, status: "problem", message, hint: clusterHint(context.name, why), facts: all }];
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
