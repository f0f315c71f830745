/**
 * Credentials for Amazon ECR: a token that its API gives to an AWS identity.
 *
 * The identity is found in registry-keychain-aws-identity.ts. Rules: docs/rules.md B4.
 *
 * https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
 */
import { isObject } from "./json.ts";
import { type EcrRegistry, parseEcrHost } from "./registry-clouds.ts";
import { findIdentity, type Identity } from "./registry-keychain-aws-identity.ts";
import { signRequest } from "./registry-keychain-aws-sign.ts";
import {
  type CloudCredential,
  type CloudProvider,
  type CloudSearch,
  type NoCredential,
  Renewed,
} from "./registry-keychain-cloud.ts";

/** The provider for Amazon ECR. It finds an identity once per region, and again when it has expired. */
export function awsProvider(): CloudProvider {
  const identities = new Map<string, Renewed<Identity>>();
  const identify = ({ domain, region }: EcrRegistry, search: CloudSearch): Promise<Identity | NoCredential> => {
    const known = identities.get(region) ?? new Renewed<Identity>();
    identities.set(region, known);
    return known.get(search, () => findIdentity(search, { region, domain }));
  };
  return {
    name: "AWS",
    find: async (host, search) => {
      const registry = parseEcrHost(host);
      if (registry === undefined) throw new RangeError(`${host} is not a host of ECR`);
      const identity = await identify(registry, search);
      return "none" in identity ? identity : askEcr(registry, { identity, search });
    },
  };
}

/** @throws {KoError} If ECR refuses the identity, or its answer holds no token. */
async function askEcr(
  { account, api, region }: EcrRegistry,
  { identity, search }: { readonly identity: Identity; readonly search: CloudSearch },
): Promise<CloudCredential> {
  const [service, target] =
    account === undefined
      ? ["ecr-public", "SpencerFrontendService.GetAuthorizationToken"]
      : ["ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"];
  const body = JSON.stringify(account === undefined ? {} : { registryIds: [account] });
  const unsigned = {
    method: "POST",
    url: api,
    headers: { "content-type": "application/x-amz-json-1.1", "x-amz-target": target },
    body,
  } as const;
  const headers = signRequest(unsigned, { keys: identity.keys, region, service, now: search.now() });
  const sent = `with the keys of ${identity.source}`;
  const value = await search.json({ ...unsigned, headers, sent });
  const list: unknown = value["authorizationData"];
  const data: unknown = Array.isArray(list) ? list[0] : list;
  const token = isObject(data) ? data["authorizationToken"] : undefined;
  const pair = typeof token === "string" ? Buffer.from(token, "base64").toString("utf8") : "";
  const colon = pair.indexOf(":");
  if (!isObject(data) || colon <= 0) throw search.fail(`POST ${api.href} answered without a token`);
  const seconds = data["expiresAt"];
  return {
    credential: { kind: "basic", username: pair.slice(0, colon), password: pair.slice(colon + 1) },
    source: `AWS, ${sent}`,
    expires: typeof seconds === "number" ? seconds * 1000 : undefined,
  };
}
