/**
 * Finds the keys of an AWS identity where AWS's own tools find them: environment, web identity, profiles, container,
 * instance.
 *
 * Addresses come from variables and files: each is checked before a secret goes there. Rules: docs/rules.md B4.5, B4.6.
 * https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
 */
import { isObject, parseJson } from "./json.ts";
import { findProfile, type Profile, profileSource } from "./registry-keychain-aws-profile.ts";
import { type AwsKeys, signRequest } from "./registry-keychain-aws-sign.ts";
import type { CloudRequest, CloudSearch, NoCredential } from "./registry-keychain-cloud.ts";
import { isLoopback, redactUrl } from "./url.ts";

export interface Identity {
  readonly keys: AwsKeys;
  /** For messages: `AWS_ACCESS_KEY_ID`. */
  readonly source: string;
  /** Milliseconds since the epoch; undefined for keys without an end. */
  readonly expires: number | undefined;
}

export interface Partition {
  readonly region: string;
  /** `amazonaws.com` */
  readonly domain: string;
}

/** Where keys are looked for. */
interface Scope extends Partition {
  readonly search: CloudSearch;
}

const METADATA = "http://169.254.169.254";
const METADATA_HOSTS: readonly string[] = ["169.254.169.254", "[fd00:ec2::254]"];
const METADATA_LIMIT_MS = 1000;
const CONTAINER = "http://169.254.170.2";
const CONTAINER_HOSTS: readonly string[] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
const REGION = /^[a-z]{2,4}(?:-[a-z]+)+-\d+$/;
const SESSION = "ko";

/**
 * The first identity, in the order of AWS's SDK for Go.
 *
 * @throws {KoError} If a configured source is not usable, refuses or does not answer.
 */
export async function findIdentity(search: CloudSearch, partition: Partition): Promise<Identity | NoCredential> {
  const scope = { ...partition, search };
  const { env } = search.host;
  const keys = keysOfEnvironment(scope);
  if (keys !== undefined) return keys;
  const file = env["AWS_WEB_IDENTITY_TOKEN_FILE"];
  if (file) return assumeByToken(scope, { file, role: env["AWS_ROLE_ARN"], session: env["AWS_ROLE_SESSION_NAME"] });
  const profile = await findProfile(search);
  const found = profile === undefined ? undefined : await identityOf(profile, scope);
  if (found !== undefined) return found;
  const tried = ["AWS_ACCESS_KEY_ID is not set", `${profileSource(search, profile?.name)} has no keys`];
  const machine = (await askContainer(scope)) ?? (await askInstance(scope));
  return "none" in machine ? { none: [...tried, ...machine.none] } : machine;
}

function keysOfEnvironment({ search }: Scope): Identity | undefined {
  const { env } = search.host;
  const id = env["AWS_ACCESS_KEY_ID"] || env["AWS_ACCESS_KEY"];
  const secret = env["AWS_SECRET_ACCESS_KEY"] || env["AWS_SECRET_KEY"];
  if (!id || !secret) return undefined;
  const keys = { id, secret, token: env["AWS_SESSION_TOKEN"] || undefined };
  return identity(search, { keys, source: "AWS_ACCESS_KEY_ID", expires: undefined });
}

/** Undefined if the profile names no source of keys. */
async function identityOf(profile: Profile, scope: Scope): Promise<Identity | undefined> {
  const { search } = scope;
  const role = profile.get("role_arn");
  const base = await baseIdentityOf(profile, scope);
  if (base === undefined) {
    if (role === undefined) return undefined;
    throw search.fail(`${profile.source} has a role_arn, but neither source_profile nor credential_source`);
  }
  // A web identity has taken the role already.
  if (role === undefined || isWebIdentity(profile)) return base;
  if (profile.get("mfa_serial") !== undefined) {
    throw search.fail(`${profile.source} wants a code for its mfa_serial, ko cannot ask for one`);
  }
  return assumeRole(scope, { base, profile, role });
}

function isWebIdentity(profile: Profile): boolean {
  const isOwn = profile.parent === undefined && profile.get("credential_source") === undefined;
  return isOwn && profile.get("web_identity_token_file") !== undefined;
}

async function baseIdentityOf(profile: Profile, scope: Scope): Promise<Identity | undefined> {
  const { search } = scope;
  const { get, parent, source } = profile;
  if (parent !== undefined) {
    const found = await identityOf(parent, scope);
    if (found === undefined) throw search.fail(`${parent.source}, the source_profile of ${source}, has no keys`);
    return found;
  }
  const [id, secret] = [get("aws_access_key_id"), get("aws_secret_access_key")];
  if (id !== undefined && secret !== undefined) {
    const keys = { id, secret, token: get("aws_session_token") };
    return identity(search, { keys, source, expires: undefined });
  }
  const origin = get("credential_source");
  if (origin !== undefined) return identityOfOrigin(origin, { profile, scope });
  const file = get("web_identity_token_file");
  if (file !== undefined)
    return assumeByToken(scope, { file, role: get("role_arn"), session: get("role_session_name") });
  if (profile.sso !== undefined) return askSso(profile, scope);
  const command = get("credential_process");
  return command === undefined ? undefined : runProcess(command, { search, source });
}

async function identityOfOrigin(
  origin: string,
  { profile, scope }: { readonly profile: Profile; readonly scope: Scope },
): Promise<Identity> {
  const { search } = scope;
  const fail = (why: string): Error => search.fail(`credential_source=${origin} of ${profile.source}: ${why}`);
  switch (origin) {
    case "Environment": {
      const found = keysOfEnvironment(scope);
      if (found === undefined) throw fail("AWS_ACCESS_KEY_ID is not set");
      return found;
    }
    case "EcsContainer": {
      const found = await askContainer(scope);
      if (found === undefined) throw fail("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set");
      return found;
    }
    case "Ec2InstanceMetadata": {
      const found = await askInstance(scope);
      if ("none" in found) throw fail(found.none.join(", "));
      return found;
    }
    default:
      throw fail("wanted Environment, EcsContainer or Ec2InstanceMetadata");
  }
}

interface WebIdentity {
  readonly file: string;
  readonly role: string | undefined;
  readonly session: string | undefined;
}

/** https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html */
async function assumeByToken(scope: Scope, { file, role, session }: WebIdentity): Promise<Identity> {
  const { search } = scope;
  if (!role) throw search.fail(`there is a web identity token in "${file}", but AWS_ROLE_ARN is not set`);
  const token = (await search.read(file, "AWS_WEB_IDENTITY_TOKEN_FILE")).trim();
  search.secrets.add(token);
  const request: CloudRequest = {
    method: "POST",
    url: stsUrl(scope),
    body: {
      Action: "AssumeRoleWithWebIdentity",
      Version: "2011-06-15",
      RoleArn: role,
      RoleSessionName: session || SESSION,
      WebIdentityToken: token,
    },
    sent: `with the token of "${file}" for ${role}`,
  };
  return readStsAnswer(request, { search, source: `the role ${role}` });
}

interface RoleOptions {
  readonly base: Identity;
  readonly profile: Profile;
  readonly role: string;
}

/** https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
async function assumeRole(scope: Scope, { base, profile, role }: RoleOptions): Promise<Identity> {
  const { region, search } = scope;
  const external = profile.get("external_id");
  const body = new URLSearchParams({
    Action: "AssumeRole",
    Version: "2011-06-15",
    RoleArn: role,
    RoleSessionName: profile.get("role_session_name") ?? SESSION,
    ...(external === undefined ? {} : { ExternalId: external }),
  }).toString();
  const headers = { "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
  const unsigned = { method: "POST", url: stsUrl(scope), headers, body } as const;
  const signed = signRequest(unsigned, { keys: base.keys, region, service: "sts", now: search.now() });
  const request = { ...unsigned, headers: signed, sent: `with the keys of ${base.source} for ${role}` };
  return readStsAnswer(request, { search, source: `the role ${role} of ${profile.source}` });
}

function stsUrl({ domain, region }: Partition): URL {
  return new URL(`https://sts.${region}.${domain}/`);
}

async function readStsAnswer(
  request: CloudRequest,
  { search, source }: { readonly search: CloudSearch; readonly source: string },
): Promise<Identity> {
  const response = await search.send(request);
  if (response.status !== 200) throw search.refusal(request, response);
  const field = (name: string): unknown => new RegExp(`<${name}>([^<]+)</${name}>`).exec(response.text)?.[1];
  const value = {
    AccessKeyId: field("AccessKeyId"),
    SecretAccessKey: field("SecretAccessKey"),
    Token: field("SessionToken"),
    Expiration: field("Expiration"),
  };
  return readKeys(value, { search, source });
}

/** https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html */
async function askSso({ name, source, sso }: Profile, { search }: Scope): Promise<Identity> {
  const hint = `aws sso login --profile ${name}`;
  if (sso === undefined) throw new RangeError("the profile has no single sign-on");
  const { account, region, role, tokenFile } = sso;
  if (!REGION.test(region)) throw search.fail(`the sso_region of ${source} is not a region`);
  const cached = parseJson(
    await Bun.file(tokenFile)
      .text()
      .catch(() => ""),
  );
  const token = isObject(cached) ? cached["accessToken"] : undefined;
  const end = isObject(cached) ? Date.parse(String(cached["expiresAt"])) : Number.NaN;
  if (typeof token !== "string" || !(end > search.now())) {
    throw search.fail(`the single sign-on of ${source} has ended, or was not begun`, hint);
  }
  search.secrets.add(token);
  const url = new URL(
    `https://portal.sso.${region}.amazonaws.com${region.startsWith("cn-") ? ".cn" : ""}/federation/credentials`,
  );
  url.search = new URLSearchParams({ account_id: account, role_name: role }).toString();
  const headers = { "x-amz-sso_bearer_token": token };
  const answer = await search.json({ method: "GET", url, headers, sent: `with the sign-on of ${source}` });
  const keys = answer["roleCredentials"];
  if (!isObject(keys)) throw search.fail(`GET ${redactUrl(url)} answered without keys`);
  const { accessKeyId, expiration, secretAccessKey, sessionToken } = keys;
  const value = {
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    Token: sessionToken,
    Expiration: typeof expiration === "number" ? new Date(expiration).toISOString() : undefined,
  };
  return readKeys(value, { search, source });
}

/** https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html */
async function runProcess(
  command: string,
  { search, source }: { readonly search: CloudSearch; readonly source: string },
): Promise<Identity> {
  const shell: readonly [string, string] = search.host.platform === "win32" ? ["cmd.exe", "/C"] : ["/bin/sh", "-c"];
  const shown = `the credential_process of ${source}`;
  const value = parseJson(await search.run([...shell, command], { shown }));
  if (!isObject(value) || value["Version"] !== 1) throw search.fail(`${shown} did not print JSON of version 1`);
  return readKeys({ ...value, Token: value["SessionToken"] }, { search, source });
}

/** Undefined if this is not a container with an identity. */
async function askContainer({ search }: Scope): Promise<Identity | undefined> {
  const { env } = search.host;
  const { AWS_CONTAINER_CREDENTIALS_FULL_URI: full, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: relative } = env;
  const name = relative ? "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" : "AWS_CONTAINER_CREDENTIALS_FULL_URI";
  const text = relative ? `${CONTAINER}${relative}` : full;
  if (!text) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isLocal = url?.protocol === "http:" && (CONTAINER_HOSTS.includes(url.hostname) || isLoopback(url.host));
  if (url === undefined || !(isLocal || (url.protocol === "https:" && url.username === ""))) {
    throw search.fail(`${name} is neither https nor an address of a container's credentials`);
  }
  if (relative && url.host !== "169.254.170.2") throw search.fail(`${name} is not a path`);
  const file = env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
  const token = file
    ? await search.read(file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    : (env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] ?? "");
  const authorization = token.trim();
  search.secrets.add(authorization);
  if (/[\r\n]/.test(authorization)) throw search.fail("the container's authorization token has more than one line");
  const request: CloudRequest = {
    method: "GET",
    url,
    headers: authorization === "" ? {} : { authorization },
    ...(isLocal ? { isLocal, limit: METADATA_LIMIT_MS } : {}),
  };
  return readKeys(await search.json(request), { search, source: `the container (${name})` });
}

/** https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html */
async function askInstance({ search }: Scope): Promise<Identity | NoCredential> {
  const { env } = search.host;
  if (/^true$/i.test(env["AWS_EC2_METADATA_DISABLED"] ?? "")) {
    return { none: ["AWS_EC2_METADATA_DISABLED is true"] };
  }
  const text = env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] || METADATA;
  const base = URL.canParse(text) ? new URL(text) : undefined;
  const isKnown = base?.protocol === "http:" && (METADATA_HOSTS.includes(base.hostname) || isLoopback(base.host));
  if (base === undefined || !isKnown) {
    throw search.fail("AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address of the instance metadata service");
  }
  const at = (path: string, request: Partial<CloudRequest>): CloudRequest => {
    return { method: "GET", isLocal: true, limit: METADATA_LIMIT_MS, ...request, url: new URL(path, base) };
  };
  let session: string;
  try {
    const headers = { "x-aws-ec2-metadata-token-ttl-seconds": "21600" };
    const request = at("/latest/api/token", { method: "PUT", headers });
    const response = await search.send(request);
    if (response.status !== 200) throw search.refusal(request, response);
    session = response.text.trim();
  } catch (error) {
    if (search.host.signal.aborted) throw error;
    return { none: [`no instance metadata service answers at ${base.host}`] };
  }
  search.secrets.add(session);
  const headers = { "x-aws-ec2-metadata-token": session };
  const list = at("/latest/meta-data/iam/security-credentials/", { headers });
  const roles = await search.send(list);
  const role = roles.status === 200 ? (roles.text.split("\n")[0]?.trim() ?? "") : "";
  if (!/^[\w+=,.@-]{1,64}$/.test(role)) return { none: ["the instance has no role"] };
  const request = at(`/latest/meta-data/iam/security-credentials/${encodeURIComponent(role)}`, { headers });
  return readKeys(await search.json(request), { search, source: `the instance role ${role}` });
}

/** Reads keys in the form in which most services answer. */
function readKeys(
  value: Readonly<Record<string, unknown>>,
  { search, source }: { readonly search: CloudSearch; readonly source: string },
): Identity {
  const { AccessKeyId: id, Expiration: end, SecretAccessKey: secret, Token: token } = value;
  if (typeof id !== "string" || typeof secret !== "string" || id === "" || secret === "") {
    throw search.fail(`${source} answered without keys`);
  }
  const expires = typeof end === "string" ? Date.parse(end) : Number.NaN;
  return identity(search, {
    keys: { id, secret, token: typeof token === "string" && token !== "" ? token : undefined },
    source,
    expires: Number.isNaN(expires) ? undefined : expires,
  });
}

function identity(search: CloudSearch, found: Identity): Identity {
  const { secret, token } = found.keys;
  search.secrets.add(secret, ...(token === undefined ? [] : [token]));
  search.debug(`keys of ${found.source}`);
  return found;
}
