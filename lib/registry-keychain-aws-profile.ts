/**
 * Reads the profiles of AWS's tools: `~/.aws/config` and `~/.aws/credentials`.
 *
 * https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
 */
import { join } from "node:path";
import { isMissing, messageOf } from "./errors.ts";
import type { CloudSearch } from "./registry-keychain-cloud.ts";

/** A profile, with the files' settings for it joined. */
export interface Profile {
  readonly name: string;
  /** For messages: `profile "dev"`. */
  readonly source: string;
  /** A setting; undefined if it is missing or empty. */
  readonly get: (key: string) => string | undefined;
  /** The profile that `source_profile` names, unless it is the profile itself. */
  readonly parent: Profile | undefined;
  readonly sso: SingleSignOn | undefined;
}

export interface SingleSignOn {
  readonly account: string;
  readonly role: string;
  readonly region: string;
  /** The file in which `aws sso login` keeps the access token. */
  readonly tokenFile: string;
}

type Section = ReadonlyMap<string, string>;

/** Sections by their titles: `default`, `profile dev`, `sso-session corp`. */
type Sections = ReadonlyMap<string, Section>;

/**
 * The profile in `AWS_PROFILE`, or the default one.
 *
 * @returns undefined if there is no default profile
 * @throws {KoError} If a file cannot be read, or a named profile does not exist.
 */
export async function findProfile(search: CloudSearch): Promise<Profile | undefined> {
  const files = listFiles(search);
  if (files === undefined) return undefined;
  const [config, credentials] = await Promise.all(
    [files.config, files.credentials].map(async (path) => parseSections(await readIfThere(path, search))),
  );
  if (config === undefined || credentials === undefined) throw new RangeError("a file was not parsed");
  const { home } = files;
  const open = (name: string, path: readonly string[]): Profile | undefined => {
    const title = name === "default" && config.has("default") ? "default" : `profile ${name}`;
    const [own, secret] = [config.get(title), credentials.get(name)];
    if (own === undefined && secret === undefined) return undefined;
    // The file with the secrets wins, as in AWS's tools.
    const get = (key: string): string | undefined => secret?.get(key) || own?.get(key) || undefined;
    const next = get("source_profile");
    let parent: Profile | undefined;
    if (next !== undefined && next !== name) {
      if (path.includes(next)) throw search.fail(`the source_profile of profile "${name}" leads in a circle`);
      parent = open(next, [...path, name]);
      if (parent === undefined) throw search.fail(`profile "${next}", the source_profile of "${name}", does not exist`);
    }
    return { name, source: `profile "${name}"`, get, parent, sso: readSso(get, { config, home }) };
  };
  const named = profileName(search);
  const profile = open(named ?? "default", []);
  if (profile === undefined && named !== undefined) {
    throw search.fail(
      `profile "${named}", which AWS_PROFILE names, is neither in ${files.config} nor in ${files.credentials}`,
    );
  }
  return profile;
}

/** The place of a profile, for messages: `profile "default" in /root/.aws/config`. */
export function profileSource(search: CloudSearch, name: string = profileName(search) ?? "default"): string {
  const files = listFiles(search);
  return `profile "${name}"${files === undefined ? "" : ` in ${files.config}`}`;
}

function profileName({ host }: CloudSearch): string | undefined {
  return host.env["AWS_PROFILE"] || host.env["AWS_DEFAULT_PROFILE"] || undefined;
}

interface Files {
  readonly home: string;
  readonly config: string;
  readonly credentials: string;
}

function listFiles({ host }: CloudSearch): Files | undefined {
  const { env, platform } = host;
  const home = (platform === "win32" ? env["USERPROFILE"] : env["HOME"]) ?? "";
  const config = env["AWS_CONFIG_FILE"] || (home === "" ? "" : join(home, ".aws", "config"));
  const credentials = env["AWS_SHARED_CREDENTIALS_FILE"] || (home === "" ? "" : join(home, ".aws", "credentials"));
  return config === "" || credentials === "" ? undefined : { home, config, credentials };
}

async function readIfThere(path: string, search: CloudSearch): Promise<string> {
  try {
    return await Bun.file(path).text();
  } catch (error) {
    if (isMissing(error)) return "";
    throw search.fail(`"${path}" cannot be read: ${messageOf(error)}`);
  }
}

/** Nested settings, whose lines are indented, are left out. */
function parseSections(text: string): Sections {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  for (const line of text.split(/\r\n|\r|\n/)) {
    if (/^\s*(?:[#;]|$)/.test(line)) continue;
    const [, title] = /^\s*\[([^\]]*)\]/.exec(line) ?? [];
    if (title !== undefined) {
      const name = title.trim().replace(/\s+/g, " ").replace(/"/g, "");
      section = sections.get(name) ?? new Map();
      sections.set(name, section);
      continue;
    }
    const [, key, value = ""] = /^([^\s=:][^=:]*?)\s*[=:]\s*(.*)$/.exec(line) ?? [];
    if (key !== undefined) section?.set(key.toLowerCase(), value.replace(/\s[#;].*$/, "").trim());
  }
  return sections;
}

function readSso(
  get: Profile["get"],
  { config, home }: { readonly config: Sections; readonly home: string },
): SingleSignOn | undefined {
  const [account, role] = [get("sso_account_id"), get("sso_role_name")];
  const session = get("sso_session");
  const shared = session === undefined ? undefined : config.get(`sso-session ${session}`);
  const region = shared?.get("sso_region") ?? get("sso_region");
  const key = session ?? get("sso_start_url");
  if (account === undefined || role === undefined || region === undefined || key === undefined) return undefined;
  // The name of the file is defined so by AWS's tools.
  const name = new Bun.CryptoHasher("sha1").update(key).digest("hex");
  return { account, role, region, tokenFile: join(home, ".aws", "sso", "cache", `${name}.json`) };
}
