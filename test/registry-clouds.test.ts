import { describe, expect, test } from "bun:test";
import { type Cloud, createCommand, findCloud, loginCommand, parseEcrHost } from "../lib/registry-clouds.ts";

const HOSTS: Readonly<Record<Cloud, readonly string[]>> = {
  aws: [
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
    "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
    "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
    "123456789012.dkr-ecr.eu-west-1.on.aws",
    "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
    "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
    "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
    "public.ecr.aws",
    "ecr-public.aws.com",
  ],
  google: ["gcr.io", "eu.gcr.io", "europe-west1-docker.pkg.dev", "us.pkg.dev"],
  github: ["ghcr.io"],
  azure: ["me.azurecr.io", "me.azurecr.cn", "me.azurecr.us", "me.azurecr.de", "my-reg-a1b2.azurecr.io"],
};

const all = Object.entries(HOSTS).flatMap(([cloud, hosts]) => hosts.map((host) => [host, cloud] as const));

describe("findCloud()", () => {
  test.each(all)("%s is of %s", (host, cloud) => {
    expect(String(findCloud(host))).toBe(cloud);
    expect(String(findCloud(host.toUpperCase()))).toBe(cloud);
  });

  test.each(all)("%s in another host is of none", (host) => {
    const others = [
      `${host}.evil.example`,
      `evil-${host}.example`,
      `${host}:8443`,
      `${host}/x`,
      `x@${host}`,
      `${host}.`,
      ` ${host}`,
      `${host}\n`,
    ];
    expect(others.filter((other) => findCloud(other) !== undefined)).toEqual([]);
  });

  test.each([
    "quay.io",
    "index.docker.io",
    "docker.pkg.github.com",
    "evilgcr.io",
    "gcr.io.evil.example",
    "pkg.dev",
    "evilpkg.dev",
    "storage.googleapis.com",
    "registry.google.com",
    "azurecr.io",
    "a.b.azurecr.io",
    "mcr.microsoft.com",
    "x.ghcr.io",
    "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
    "a123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil",
    "123456789012.dkr.ecr.evil.example.amazonaws.com",
    "123456789012.dkr.ecr..amazonaws.com",
    "123456789012xdkr.ecr.eu-west-1.amazonaws.com",
  ])("%s is of none", (host) => {
    expect(findCloud(host)).toBeUndefined();
  });
});

describe("parseEcrHost()", () => {
  test.each<[string, string, string, string]>([
    [
      "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
      "https://api.ecr.eu-west-1.amazonaws.com/",
      "eu-west-1",
      "amazonaws.com",
    ],
    [
      "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
      "https://api.ecr-fips.us-gov-west-1.amazonaws.com/",
      "us-gov-west-1",
      "amazonaws.com",
    ],
    [
      "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
      "https://api.ecr.cn-north-1.amazonaws.com.cn/",
      "cn-north-1",
      "amazonaws.com.cn",
    ],
    ["123456789012.dkr-ecr.eu-west-1.on.aws", "https://ecr.eu-west-1.api.aws/", "eu-west-1", "amazonaws.com"],
    ["123456789012.dkr-ecr-fips.us-east-1.on.aws", "https://ecr-fips.us-east-1.api.aws/", "us-east-1", "amazonaws.com"],
    [
      "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
      "https://ecr.cn-north-1.api.amazonwebservices.com.cn/",
      "cn-north-1",
      "amazonaws.com.cn",
    ],
    ["public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com/", "us-east-1", "amazonaws.com"],
  ])("%s is asked at %s", (host, api, region, domain) => {
    const parsed = parseEcrHost(host);
    expect([parsed?.api.href, parsed?.region, parsed?.domain]).toEqual([api, region, domain]);
  });
});

describe("loginCommand()", () => {
  test.each([
    ["r.example:5000", "ko login r.example:5000 -u USER --password-stdin"],
    ["index.docker.io", "ko login docker.io -u USER --password-stdin"],
    ["ghcr.io", "ko login ghcr.io -u USER --password-stdin"],
    ["eu.gcr.io", "gcloud auth print-access-token | ko login eu.gcr.io -u oauth2accesstoken --password-stdin"],
    [
      "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
      "aws ecr get-login-password --region eu-west-1 | ko login 123456789012.dkr.ecr.eu-west-1.amazonaws.com -u AWS --password-stdin",
    ],
    [
      "public.ecr.aws",
      "aws ecr-public get-login-password --region us-east-1 | ko login public.ecr.aws -u AWS --password-stdin",
    ],
    [
      "me.azurecr.io",
      "az acr login --name me --expose-token --query accessToken --output tsv | ko login me.azurecr.io -u 00000000-0000-0000-0000-000000000000 --password-stdin",
    ],
  ])("for %s", (host, wanted) => {
    expect(loginCommand(host)).toBe(wanted);
  });
});

describe("createCommand()", () => {
  test.each([
    ["r.example", "team/web", undefined],
    ["eu.gcr.io", "team/web", undefined],
    [
      "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
      "team/web",
      "aws ecr create-repository --repository-name team/web --region eu-west-1",
    ],
    [
      "public.ecr.aws",
      "alias/team/web",
      "aws ecr-public create-repository --repository-name team/web --region us-east-1",
    ],
  ])("for %s/%s", (host, path, wanted) => {
    expect(createCommand(host, path)).toBe(wanted);
  });
});
