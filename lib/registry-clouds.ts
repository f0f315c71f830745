/**
 * The registries of clouds: which host belongs to which cloud, and what to type to log in there.
 *
 * Host names are matched whole: a token for a cloud never goes to a host that only contains its name.
 * Rules: docs/rules.md B3.1, B4.1, B5.1, B5.4.
 */
import { DOCKER_HUB } from "./reference.ts";

export type Cloud = "aws" | "google" | "github" | "azure";

/** A registry of Amazon ECR. */
export interface EcrRegistry {
  /** The number of the account; undefined for the public gallery. */
  readonly account: string | undefined;
  readonly region: string;
  /** Where tokens are asked for: `https://api.ecr.eu-west-1.amazonaws.com/`. */
  readonly api: URL;
  /** The domain of the partition's other services: `amazonaws.com`. */
  readonly domain: string;
}

const ECR_PUBLIC: readonly string[] = ["public.ecr.aws", "ecr-public.aws.com"];

const ECR =
  /^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z0-9][a-z0-9_-]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$/;

/** The dual-stack domains of registries, with those of the API and of other services. */
const DUAL_STACK: Readonly<Record<string, readonly [api: string, domain: string]>> = {
  "on.aws": ["api.aws", "amazonaws.com"],
  "on.amazonwebservices.com.cn": ["api.amazonwebservices.com.cn", "amazonaws.com.cn"],
};

const GOOGLE = /^(?:(?:[a-z0-9-]+\.)*gcr\.io|(?:[a-z0-9-]+\.)+pkg\.dev)$/;

const AZURE = /^[a-z0-9][a-z0-9_-]*\.azurecr\.(?:io|cn|us|de)$/;

/** The cloud of a registry `host[:port]`; undefined for all other hosts, and for hosts with a port. */
export function findCloud(host: string): Cloud | undefined {
  const name = host.toLowerCase();
  if (name === "ghcr.io") return "github";
  if (GOOGLE.test(name)) return "google";
  if (AZURE.test(name)) return "azure";
  return parseEcrHost(name) === undefined ? undefined : "aws";
}

/** The parts of a host of Amazon ECR; undefined for all other hosts. */
export function parseEcrHost(host: string): EcrRegistry | undefined {
  const name = host.toLowerCase();
  if (ECR_PUBLIC.includes(name)) {
    const region = "us-east-1";
    const api = new URL(`https://api.ecr-public.${region}.amazonaws.com/`);
    return { account: undefined, region, api, domain: "amazonaws.com" };
  }
  const [, account, fips = "", region = "", suffix = ""] = ECR.exec(name) ?? [];
  if (account === undefined) return undefined;
  const dual = Object.hasOwn(DUAL_STACK, suffix) ? DUAL_STACK[suffix] : undefined;
  if (dual !== undefined) {
    const [apiDomain, domain] = dual;
    return { account, region, api: new URL(`https://ecr${fips}.${region}.${apiDomain}/`), domain };
  }
  return { account, region, api: new URL(`https://api.ecr${fips}.${region}.${suffix}/`), domain: suffix };
}

/** The command that logs in to a host. */
export function loginCommand(host: string): string {
  const login = (user: string): string => `ko login ${host} -u ${user} --password-stdin`;
  switch (findCloud(host)) {
    case "aws": {
      const { account, region } = parseEcrHost(host) ?? {};
      const service = account === undefined ? "ecr-public" : "ecr";
      return `aws ${service} get-login-password --region ${region} | ${login("AWS")}`;
    }
    case "google":
      return `gcloud auth print-access-token | ${login("oauth2accesstoken")}`;
    case "azure": {
      const name = host.replace(/\..*$/, "");
      const token = `az acr login --name ${name} --expose-token --query accessToken --output tsv`;
      return `${token} | ${login("00000000-0000-0000-0000-000000000000")}`;
    }
    case "github":
    case undefined:
      return `ko login ${host === DOCKER_HUB ? "docker.io" : host} -u USER --password-stdin`;
  }
}

/** The command that makes a repository, in a cloud where a push does not make it; undefined for all other hosts. */
export function createCommand(host: string, path: string): string | undefined {
  const registry = parseEcrHost(host);
  if (registry === undefined) return undefined;
  const { account, region } = registry;
  // The first part of a name in the public gallery is the alias of its registry.
  const name = account === undefined ? path.slice(path.indexOf("/") + 1) : path;
  return `aws ${account === undefined ? "ecr-public" : "ecr"} create-repository --repository-name ${name} --region ${region}`;
}
