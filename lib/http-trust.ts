/**
 * The certificate authorities of the system, as Go's programs find them, beside those that are compiled into Bun.
 *
 * They are read when a server's certificate is not trusted without them: reading and parsing takes 40 ms. Bun by itself
 * reads fewer places. Rules: docs/rules.md A1.12.
 *
 * https://pkg.go.dev/crypto/x509#SystemCertPool
 */
import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { platform } from "node:os";
import { join } from "node:path";
import { once } from "./async.ts";
import { codeOf } from "./errors.ts";
import { type HostCertificates, type HostRules, readCertificates } from "./http-hosts.ts";

/** The TLS options of `fetch` that decide which servers are trusted. */
export interface TrustOptions {
  /** PEM texts. They take the place of all authorities that Bun knows. */
  readonly ca?: string[];
  /** Whether every certificate of `ca` is trusted, not only those that signed themselves. */
  readonly allowPartialTrustChain?: boolean;
  /** PEM texts with which the server knows ko. */
  readonly cert?: string;
  readonly key?: string;
}

/** Where a system keeps its authorities. */
export interface TrustPlaces {
  /** The first that can be read counts. */
  readonly files: readonly string[];
  /** Every file in every folder counts. */
  readonly folders: readonly string[];
}

/** The places of Linux: of Debian, Fedora, openSUSE, OpenELEC, RHEL and Alpine. */
const LINUX: TrustPlaces = {
  files: [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
  ],
  folders: ["/etc/ssl/certs", "/etc/pki/tls/certs"],
};
/** macOS and Windows keep theirs in a store instead. */
const NOWHERE: TrustPlaces = { files: [], folders: [] };

/** A larger file is no list of certificates; those of distributions have 250 KB. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** A block without headers: a block with headers, as of an encrypted one, is not a certificate to trust. */
const BLOCK = /-----BEGIN CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/g;
/** The codes of failures that another authority may mend. */
const UNTRUSTED = /SELF_SIGNED|UNABLE_TO_|^CERT_|INVALID_CA/;

/** Decides for the connections of one client which certificates they need: none, those of their host, the system's. */
export class SystemTrust {
  readonly #env: Readonly<Record<string, string>>;
  readonly #rules: HostRules;
  readonly #certificates = new Map<string, Promise<HostCertificates | undefined>>();
  /** By the `host:port` of a server that Bun's own authorities do not vouch for: the options that did. */
  readonly #proved = new Map<string, TrustOptions>();
  #options: Promise<TrustOptions | undefined> | undefined;

  /** @param env holds `SSL_CERT_FILE` and `SSL_CERT_DIR`, and the home directory */
  constructor(env: Readonly<Record<string, string>>, rules: HostRules = new Map()) {
    this.#env = env;
    this.#rules = rules;
  }

  /**
   * Sends a request: again with other authorities if the server's certificate is not trusted without them. The failed
   * handshake has sent nothing of the request.
   *
   * @throws {KoError} If the certificates of the host cannot be read.
   * @throws what `send` throws
   */
  async connect<T>(url: URL, send: (options: TrustOptions) => Promise<T>): Promise<T> {
    const { host, protocol } = url;
    if (protocol !== "https:") return send({});
    const proved = this.#proved.get(host);
    if (proved !== undefined) return send(proved);
    const own = await once(this.#certificates, host, () =>
      readCertificates(url, { env: this.#env, rules: this.#rules }),
    );
    const client = own?.client ?? {};
    const attempt = async (options: TrustOptions): Promise<T> => {
      const result = await send(options);
      this.#proved.set(host, options);
      return result;
    };
    if (own !== undefined && own.ca.length > 0) {
      try {
        return await attempt({ ca: [...own.ca], allowPartialTrustChain: true, ...client });
      } catch (error) {
        if (!isUntrusted(error)) throw error;
      }
    }
    try {
      return await send(client);
    } catch (error) {
      if (!isUntrusted(error)) throw error;
      const options = await this.#read();
      if (options === undefined) throw error;
      return attempt({ ...options, ...client });
    }
  }

  /** Undefined if the system has no authority that Bun does not know. */
  #read(): Promise<TrustOptions | undefined> {
    this.#options ??= (async () => {
      const { getCACertificates, rootCertificates } = await import("node:tls");
      const stored = platform() === "linux" ? [] : getCACertificates("system");
      const own = await readAuthorities(this.#env, { known: rootCertificates, stored });
      return own.length === 0 ? undefined : { ca: [...rootCertificates, ...own], allowPartialTrustChain: true };
    })();
    return this.#options;
  }
}

function isUntrusted(error: unknown): boolean {
  return UNTRUSTED.test(codeOf(error) ?? "");
}

/**
 * Reads the certificates of the system, one PEM text each. Places that cannot be read and entries that are no
 * certificates are skipped.
 *
 * @param env `SSL_CERT_FILE` names one file in place of the files, `SSL_CERT_DIR` a list of folders in place of the folders
 * @param options.known PEM texts to leave out
 * @param options.stored PEM texts of a store of the system
 */
export async function readAuthorities(
  env: Readonly<Record<string, string>>,
  options: {
    readonly known?: readonly string[];
    readonly stored?: readonly string[];
    readonly places?: TrustPlaces;
  } = {},
): Promise<readonly string[]> {
  const { known = [], stored = [] } = options;
  const places = options.places ?? (platform() === "linux" ? LINUX : NOWHERE);
  const file = env["SSL_CERT_FILE"] ?? "";
  const folders = env["SSL_CERT_DIR"] ?? "";
  const separator = platform() === "win32" ? ";" : ":";
  const texts = [
    ...stored,
    ...(await readFirst(file === "" ? places.files : [file])),
    ...(await readFolders(folders === "" ? places.folders : folders.split(separator))),
  ];
  const { X509Certificate } = await import("node:crypto");
  const seen = new Set(known.flatMap(blocksOf));
  const found: string[] = [];
  for (const block of texts.flatMap(blocksOf)) {
    if (seen.has(block)) continue;
    seen.add(block);
    try {
      found.push(new X509Certificate(Buffer.from(block, "base64")).toString());
    } catch {
      // One bad entry would make Bun refuse the whole list.
    }
  }
  return found;
}

/** The content of the first file that can be read. */
async function readFirst(paths: readonly string[]): Promise<readonly string[]> {
  for (const path of paths) {
    const text = await readRegular(path);
    if (text !== undefined) return [text];
  }
  return [];
}

async function readFolders(folders: readonly string[]): Promise<readonly string[]> {
  const texts: string[] = [];
  for (const folder of folders) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    const contents = await Promise.all(
      entries.map(async (entry) => {
        const path = join(folder, entry.name);
        // `c_rehash` makes such a link for each file, with the hash as name.
        if (entry.isSymbolicLink() && !(await readlink(path).catch(() => "/")).includes("/")) return undefined;
        return readRegular(path);
      }),
    );
    texts.push(...contents.filter((text) => text !== undefined));
  }
  return texts;
}

/** Undefined if it cannot be read; a fifo would wait for its writer. */
async function readRegular(path: string): Promise<string | undefined> {
  try {
    const found = await stat(path);
    return found.isFile() && found.size <= MAX_FILE_BYTES ? await readFile(path, "latin1") : undefined;
  } catch {
    return undefined;
  }
}

/** The base64 of the certificates in a PEM text, without line ends. */
function blocksOf(text: string): readonly string[] {
  return Array.from(text.matchAll(BLOCK), ([, base64 = ""]) => base64.replace(/\s/g, ""));
}
