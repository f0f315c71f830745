/**
 * Credentials for Azure Container Registry: a token of Azure's directory, exchanged for one of the registry.
 *
 * The directory's token goes to hosts of {@link findCloud} only, over https. Rules: docs/rules.md B5.
 *
 * https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
 */
import { messageOf } from "./errors.ts";
import {
  type CloudCredential,
  type CloudProvider,
  type CloudRequest,
  type CloudSearch,
  type NoCredential,
  Renewed,
} from "./registry-keychain-cloud.ts";
import { redactUrl } from "./url.ts";

/** A token of Azure's directory. */
interface DirectoryToken {
  readonly value: string;
  /** Where it is from, for messages: `AZURE_CLIENT_SECRET`. */
  readonly source: string;
  /** Milliseconds since the epoch; undefined if the directory did not say. */
  readonly expires: number | undefined;
}

interface AzureCloud {
  readonly login: string;
  readonly resource: string;
}

const CLOUDS: Readonly<Record<string, AzureCloud>> = {
  AZURECLOUD: { login: "login.microsoftonline.com", resource: "https://management.azure.com/" },
  AZUREPUBLICCLOUD: { login: "login.microsoftonline.com", resource: "https://management.azure.com/" },
  AZURECHINACLOUD: { login: "login.chinacloudapi.cn", resource: "https://management.chinacloudapi.cn/" },
  AZUREUSGOVERNMENT: { login: "login.microsoftonline.us", resource: "https://management.usgovcloudapi.net/" },
  AZUREUSGOVERNMENTCLOUD: { login: "login.microsoftonline.us", resource: "https://management.usgovcloudapi.net/" },
  AZUREGERMANCLOUD: { login: "login.microsoftonline.de", resource: "https://management.microsoftazure.de/" },
};

const METADATA = "http://169.254.169.254/metadata/identity/oauth2/token";
const METADATA_LIMIT_MS = 1000;
const ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/** The provider for Azure Container Registry. It gets the directory's token once, and again when it has expired. */
export function azureProvider(): CloudProvider {
  const tokens = new Renewed<DirectoryToken>();
  return {
    name: "Azure",
    find: async (host, search) => {
      const token = await tokens.get(search, () => findDirectoryToken(search));
      return "none" in token ? token : exchange(token, { host, search });
    },
  };
}

async function findDirectoryToken(search: CloudSearch): Promise<DirectoryToken | NoCredential> {
  const { env } = search.host;
  const name = env["AZURE_ENVIRONMENT"] || "AzurePublicCloud";
  const key = name.toUpperCase();
  const cloud = Object.hasOwn(CLOUDS, key) ? CLOUDS[key] : undefined;
  if (cloud === undefined) throw search.fail("AZURE_ENVIRONMENT is not the name of a cloud");
  const { AZURE_CLIENT_ID: client = "", AZURE_CLIENT_SECRET: secret = "", AZURE_TENANT_ID: tenant = "" } = env;
  if (tenant !== "" && client !== "") {
    if (secret !== "") {
      search.secrets.add(secret);
      const proof = { client_secret: secret };
      return askDirectory(search, { cloud, proof, source: "AZURE_CLIENT_SECRET" });
    }
    const found = await readFederatedToken(search);
    if (found !== undefined) {
      search.secrets.add(found.token);
      const proof = { client_assertion_type: ASSERTION, client_assertion: found.token };
      return askDirectory(search, { cloud, proof, source: found.source });
    }
  }
  return askMachine(search, { cloud, client });
}

async function readFederatedToken(
  search: CloudSearch,
): Promise<{ readonly token: string; readonly source: string } | undefined> {
  const { AZURE_FEDERATED_TOKEN: token, AZURE_FEDERATED_TOKEN_FILE: file } = search.host.env;
  if (token) return { token: token.trim(), source: "AZURE_FEDERATED_TOKEN" };
  if (!file) return undefined;
  const source = "AZURE_FEDERATED_TOKEN_FILE";
  return { token: (await search.read(file, source)).trim(), source };
}

interface DirectoryOptions {
  readonly cloud: AzureCloud;
  readonly proof: Readonly<Record<string, string>>;
  readonly source: string;
}

/** https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow */
async function askDirectory(search: CloudSearch, { cloud, proof, source }: DirectoryOptions): Promise<DirectoryToken> {
  const { AZURE_CLIENT_ID: client = "", AZURE_TENANT_ID: tenant = "" } = search.host.env;
  if (!/^[\w.-]+$/.test(tenant)) throw search.fail("AZURE_TENANT_ID is neither an id nor a domain");
  const authority = checkAuthority(search) ?? cloud.login;
  const request: CloudRequest = {
    method: "POST",
    url: new URL(`https://${authority}/${tenant}/oauth2/token`),
    body: { grant_type: "client_credentials", client_id: client, resource: cloud.resource, ...proof },
    sent: `with ${source} for client ${client}`,
  };
  return readDirectoryToken(request, { search, source });
}

/** The host in `AZURE_AUTHORITY_HOST`, which workload identities set; undefined if it is not set. */
function checkAuthority(search: CloudSearch): string | undefined {
  const text = search.host.env["AZURE_AUTHORITY_HOST"];
  if (!text) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isKnown = Object.values(CLOUDS).some(({ login }) => login === url?.host);
  if (url?.protocol !== "https:" || !isKnown) throw search.fail("AZURE_AUTHORITY_HOST is not a login host of Azure");
  return url.host;
}

/** https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token */
async function askMachine(
  search: CloudSearch,
  { client, cloud }: { readonly cloud: AzureCloud; readonly client: string },
): Promise<DirectoryToken | NoCredential> {
  const url = new URL(METADATA);
  url.search = new URLSearchParams({
    "api-version": "2018-02-01",
    resource: cloud.resource,
    ...(client === "" ? {} : { client_id: client }),
  }).toString();
  const headers = { metadata: "true" };
  const request: CloudRequest = { method: "GET", url, headers, isLocal: true, limit: METADATA_LIMIT_MS };
  try {
    return await readDirectoryToken(request, { search, source: "the managed identity of this machine" });
  } catch (error) {
    if (search.host.signal.aborted) throw error;
    const variables = "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are not all set";
    const why = messageOf(error).replace(/^Azure gave none: /, "");
    return { none: [variables, `this machine has no managed identity (${why})`] };
  }
}

async function readDirectoryToken(
  request: CloudRequest,
  { search, source }: { readonly search: CloudSearch; readonly source: string },
): Promise<DirectoryToken> {
  const { access_token: value, expires_on: end } = await search.json(request);
  if (typeof value !== "string" || value === "") {
    throw search.fail(`${request.method} ${redactUrl(request.url)} answered without a token`);
  }
  search.secrets.add(value);
  // A number in text, in seconds.
  const seconds = Number(end);
  return { value, source, expires: end !== undefined && seconds > 0 ? seconds * 1000 : undefined };
}

/** Exchanges the directory's token for a refresh token of the registry. */
async function exchange(
  token: DirectoryToken,
  { host, search }: { readonly host: string; readonly search: CloudSearch },
): Promise<CloudCredential> {
  const { AZURE_TENANT_ID: tenant = "" } = search.host.env;
  const request: CloudRequest = {
    method: "POST",
    url: new URL(`https://${host}/oauth2/exchange`),
    body: {
      grant_type: "access_token",
      service: host,
      ...(tenant === "" ? {} : { tenant }),
      access_token: token.value,
    },
    sent: `with the token of ${token.source}`,
  };
  const { refresh_token: refresh } = await search.json(request);
  if (typeof refresh !== "string" || refresh === "") {
    throw search.fail(`POST ${redactUrl(request.url)} answered without a token`);
  }
  return { credential: { kind: "identity", token: refresh }, source: `Azure, ${request.sent}`, expires: token.expires };
}
