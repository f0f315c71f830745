/**
 * How single hosts are reached: the user's rules, and the certificates that Docker and podman keep for a host.
 *
 * https://docs.docker.com/engine/security/certificates/
 * https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { KoError } from "./errors.ts";
import { readNames } from "./file.ts";
import { findConfigFolder } from "./host.ts";

/** The user's rule for a host. */
export interface HostRule {
  /** The host is reached over plain http only. */
  readonly http: boolean;
  /** Plain http is allowed, and certificates are not verified. */
  readonly insecure: boolean;
  /** The absolute path of a PEM file with authorities that may vouch for the host, and where it is set. */
  readonly ca: { readonly value: string; readonly where: string } | undefined;
}

/** By `host[:port]`. */
export type HostRules = ReadonlyMap<string, HostRule>;

/** The certificates of one host, as the options of `fetch` have them. */
export interface HostCertificates {
  /** PEM texts of authorities; empty if the host has none of its own. */
  readonly ca: readonly string[];
  /** The certificate and key with which the host knows ko; undefined if there are none. */
  readonly client: { readonly cert: string; readonly key: string } | undefined;
}

/** The folders with a folder for each host, for all users. */
const SYSTEM_FOLDERS = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/** Returns the rule for the host of a URL. A rule without a port is for the scheme's port. */
export function findRule(rules: HostRules, url: URL): HostRule | undefined {
  if (rules.size === 0) return undefined;
  return rules.get(url.host) ?? rules.get(withPort(url));
}

/** Whether a list of `host[:port]` has the host of a URL. */
export function hasHost(hosts: readonly string[], url: URL): boolean {
  return hosts.includes(url.host) || hosts.includes(withPort(url));
}

function withPort({ hostname, port, protocol }: URL): string {
  return `${hostname}:${port || (protocol === "https:" ? "443" : "80")}`;
}

/**
 * Reads the certificates of a host: the PEM file of its rule, else the files `*.crt`, `*.cert` and `*.key` of its folder in
 * `certs.d`, the user's folders first.
 *
 * @throws {KoError} If a file cannot be read, is no PEM text, or a certificate has no key.
 */
export async function readCertificates(
  url: URL,
  { env, rules }: { readonly env: Readonly<Record<string, string>>; readonly rules: HostRules },
): Promise<HostCertificates | undefined> {
  const ca = findRule(rules, url)?.ca;
  if (ca !== undefined) return { ca: [await readPem(ca.value, ca.where)], client: undefined };
  const folder = foldersOf(env)
    .flatMap((parent) => [join(parent, url.host), join(parent, withPort(url))])
    .find((each) => readNames(each).length > 0);
  return folder === undefined ? undefined : readFolder(folder);
}

function foldersOf(env: Readonly<Record<string, string>>): readonly string[] {
  const config = findConfigFolder(env);
  const own = config === undefined ? [] : [join(config, "containers/certs.d"), join(config, "docker/certs.d")];
  return [...own, ...SYSTEM_FOLDERS];
}

async function readFolder(folder: string): Promise<HostCertificates> {
  const names = readNames(folder).toSorted();
  const ca = names.filter((name) => name.endsWith(".crt")).map((name) => readPem(join(folder, name)));
  const cert = names.find((name) => name.endsWith(".cert"));
  if (cert === undefined) return { ca: await Promise.all(ca), client: undefined };
  const key = cert.replace(/cert$/, "key");
  if (!names.includes(key)) {
    throw new KoError(`Cannot use the certificate "${join(folder, cert)}": its key "${key}" is not beside it`);
  }
  const [certText, keyText] = [await readPem(join(folder, cert)), await readPem(join(folder, key))];
  return { ca: await Promise.all(ca), client: { cert: certText, key: keyText } };
}

/** @param where the place of the setting; undefined for a file that was found */
async function readPem(path: string, where?: string): Promise<string> {
  const what = where === undefined ? `Cannot use "${path}"` : `Cannot use ca "${path}" of ${where}`;
  const text = await readFile(path, "latin1").catch((cause: unknown) => {
    throw new KoError(what, { cause });
  });
  if (/-----BEGIN [A-Z0-9 ]*(?:CERTIFICATE|PRIVATE KEY)-----/.test(text)) return text;
  throw new KoError(`${what}: it has no certificate, wanted a PEM file`);
}
