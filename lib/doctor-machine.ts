/**
 * The machine, for `ko doctor`: the cache, room for temporary files, the limits of inotify, proxies, certificates.
 *
 * Nothing is written: whether a folder can be written to, its owner, its mode and its file system tell.
 */
import { constants } from "node:fs";
import { access, readFile, stat, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { defaultCacheLimit, findCacheFolder, GENERATION, readCacheLimit, whyUnusable } from "./cache-folder.ts";
import { measureCache, surveyCache } from "./cache-clean.ts";
import type { CheckContext, Finding } from "./doctor-check.ts";
import { messageOf } from "./errors.ts";
import { readAuthorities } from "./http-trust.ts";
import { formatSize } from "./log.ts";
import { WATCH_SETTINGS } from "./watch-files.ts";

/** Bytes that must be free: a program and its layer take some tens of megabytes. */
const MIN_FREE = 100e6;
/** Bytes below which there is a note: several large programs at once may take more. */
const LOW_FREE = 1e9;
/** The variables of proxies, in the order of the report. */
const PROXIES = ["HTTPS_PROXY", "HTTP_PROXY"] as const;
/** The limits of inotify under which a watch of a large module polls. */
const MIN_WATCHES = 8192;
const MIN_INSTANCES = 128;

/** The cache: its place, its size and its limit, and whether it can be used. */
export async function checkCache({ host }: CheckContext): Promise<readonly Finding[]> {
  const name = "cache";
  const limit = readCacheLimit(host.env);
  const place = findCacheFolder(host);
  if (place === undefined) {
    const isOff = host.env["KOCACHE"] === "off";
    const message = isOff ? "it is off (KOCACHE=off)" : "there is no folder for it: HOME is not set";
    const hint = isOff ? "unset KOCACHE" : "export KOCACHE=/path/to/folder";
    return [{ name, status: "note", message: `${message}, so each build is a full build`, hint }];
  }
  const why = whyUnusable(join(place, GENERATION), host);
  if (why !== undefined) {
    const message = `"${place}" cannot be used, so each build is a full build: ${why}`;
    return [{ name, status: "problem", message, hint: "Set KOCACHE to a folder that you can write to." }];
  }
  const size = measureCache(surveyCache(place, { now: host.now().getTime() }));
  const bytes = { size, limit: limit ?? defaultCacheLimit(place), free: await freeBytes(place) };
  const shown = `${place}: ${formatSize(size)} of at most ${formatSize(bytes.limit)}`;
  const hint = "Make room there: ko cache clean; or set KOCACHE to a folder on another disk.";
  return [{ name, ...describeRoom(shown, { free: bytes.free, hint }), facts: { place, ...bytes } }];
}

/** The folder for temporary files. */
export async function checkTemporary({ host }: CheckContext): Promise<readonly Finding[]> {
  const name = "temporary";
  const folder = resolve(host.cwd, host.env["TMPDIR"] || tmpdir());
  const isFolder = (await stat(folder).catch(() => undefined))?.isDirectory() === true;
  const why = isFolder
    ? await access(folder, constants.W_OK | constants.X_OK).then(() => undefined, messageOf)
    : "there is no such folder";
  if (why !== undefined) {
    const message = `"${folder}" cannot be written to: ${why}`;
    return [{ name, status: "problem", message, hint: "Set TMPDIR to a folder that can be written to." }];
  }
  const free = await freeBytes(folder);
  const room = describeRoom(folder, { free, hint: "Make room there, or set TMPDIR to a folder on another disk." });
  return [{ name, ...room, facts: { folder, free } }];
}

/** The limits of `--watch` on Linux. @param folder `/proc/sys/fs/inotify`; it is missing on other systems */
export async function checkInotify(folder: string): Promise<readonly Finding[]> {
  const name = "inotify";
  const [watches, instances] = await Promise.all(
    ["max_user_watches", "max_user_instances"].map(async (file) => {
      const text = await readFile(join(folder, file), "utf8").catch(() => "");
      return /^\d+\s*$/.test(text) ? Number(text) : undefined;
    }),
  );
  if (watches === undefined || instances === undefined) return [];
  const facts = { watches, instances };
  const shown = `${watches} watches, ${instances} instances for each user`;
  const settings = [
    ...(watches < MIN_WATCHES ? [WATCH_SETTINGS.ENOSPC] : []),
    ...(instances < MIN_INSTANCES ? [WATCH_SETTINGS.EMFILE] : []),
  ];
  if (settings.length === 0) return [{ name, status: "ok", message: shown, facts }];
  const message = `${shown}: few for ko -W, which polls the folders that are left over`;
  return [{ name, status: "note", message, hint: `sudo sysctl ${settings.join(" ")}`, facts }];
}

/** The proxies of the environment; whether they answer shows where they are used. */
export function checkProxy({ host: { env } }: Pick<CheckContext, "host">): readonly Finding[] {
  const name = "proxy";
  const findings: Finding[] = [];
  const shown: string[] = [];
  for (const variable of PROXIES) {
    const text = env[variable] || env[variable.toLowerCase()] || "";
    if (text === "") continue;
    const url = text.includes("://") ? text : `http://${text}`;
    if (!URL.canParse(url) || !/^(?:https?|socks5h?):$/.test(new URL(url).protocol)) {
      const message = `Cannot use ${variable}: it is not the URL of an HTTP or SOCKS5 proxy`;
      findings.push({ name, status: "problem", message, hint: `export ${variable}=http://HOST:PORT` });
      continue;
    }
    // Without the user and the password.
    const { host, protocol } = new URL(url);
    shown.push(`${variable} ${protocol}//${host}`);
  }
  const except = env["NO_PROXY"] || env["no_proxy"] || "";
  if (shown.length > 0 && except !== "") shown.push(`not for ${except}`);
  if (env["ALL_PROXY"] || env["all_proxy"]) {
    const message = "ALL_PROXY has no effect on ko and go";
    findings.push({ name, status: "note", message, hint: "export HTTPS_PROXY=$ALL_PROXY HTTP_PROXY=$ALL_PROXY" });
  }
  if (findings.length > 0 && shown.length === 0) return findings;
  return [{ name, status: "ok", message: shown.join(", ") || "none", facts: { proxies: shown } }, ...findings];
}

/** The certificate authorities of the system, and the variables that name others. */
export async function checkCertificates({ host: { cwd, env } }: CheckContext): Promise<readonly Finding[]> {
  const name = "certificates";
  const named = [
    ...[env["SSL_CERT_FILE"] ?? ""].map((path) => ["SSL_CERT_FILE", path] as const),
    ...(env["SSL_CERT_DIR"] ?? "").split(delimiter).map((path) => ["SSL_CERT_DIR", path] as const),
  ].filter(([, path]) => path !== "");
  const findings: Finding[] = [];
  for (const [variable, path] of named) {
    const found = await stat(resolve(cwd, path)).catch(() => undefined);
    const wanted = variable === "SSL_CERT_FILE" ? "file" : "folder";
    const isRight = wanted === "file" ? found?.isFile() : found?.isDirectory();
    if (isRight === true) continue;
    const why = found === undefined ? "it does not exist" : `it is not a ${wanted}`;
    const message = `${variable} names "${path}": ${why}`;
    findings.push({ name, status: "problem", message, hint: `unset ${variable}` });
  }
  if (findings.length > 0) return findings;
  const count = (await readAuthorities(env)).length;
  const source = named.map(([variable, path]) => `${variable}=${path}`).join(", ") || "the system";
  const message = `${count} authorities of ${source}, beside those in ko`;
  if (count > 0 || named.length === 0) return [{ name, status: "ok", message, facts: { authorities: count } }];
  return [
    {
      name,
      status: "problem",
      message: `there is no certificate in ${source}`,
      hint: "unset SSL_CERT_FILE SSL_CERT_DIR",
    },
  ];
}

function describeRoom(
  shown: string,
  { free, hint }: { readonly free: number; readonly hint: string },
): Pick<Finding, "status" | "message" | "hint"> {
  if (free >= LOW_FREE) return { status: "ok", message: `${shown}, ${formatSize(free)} free` };
  return {
    status: free < MIN_FREE ? "problem" : "note",
    message: `${shown}, only ${formatSize(free)} free`,
    hint,
  };
}

/** The bytes that the disk of a folder, which need not exist yet, has for us. */
async function freeBytes(folder: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (error) {
    if (dirname(folder) === folder) throw error;
    return freeBytes(dirname(folder));
  }
}
