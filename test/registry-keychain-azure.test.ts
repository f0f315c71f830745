import { describe, expect, test } from "bun:test";
import {
  type CloudWorldOptions,
  json,
  makeCloudWorld,
  type Service,
  type Services,
} from "./helpers/registry-clouds.ts";

const REPOSITORY = "me.azurecr.io/app";
const AAD = "POST https://login.microsoftonline.com/tenant-1/oauth2/token";
const EXCHANGE = "POST https://me.azurecr.io/oauth2/exchange";
const MSI = "GET http://169.254.169.254/metadata/identity/oauth2/token";

const canaries = {
  secret: "canary-client-secret",
  assertion: "canary.federated.token",
  aad: "canary.aad.token",
  refresh: "canary.acr.refresh",
};
const principal = { AZURE_TENANT_ID: "tenant-1", AZURE_CLIENT_ID: "client-1", AZURE_CLIENT_SECRET: canaries.secret };
const ARM = "https://management.azure.com/";

const token = (): Response => json({ access_token: canaries.aad, expires_on: "4000000000", token_type: "Bearer" });
const refuse = (): Response =>
  json(
    { error: "invalid_client", error_description: `AADSTS7000215: Invalid client secret provided. ${canaries.secret}` },
    401,
  );

const bySecret =
  (resource: string): Service =>
  ({ form }) =>
    Bun.deepEquals(form, {
      grant_type: "client_credentials",
      client_id: "client-1",
      resource,
      client_secret: canaries.secret,
    })
      ? token()
      : refuse();

const byAssertion: Service = ({ form }) =>
  Bun.deepEquals(form, {
    grant_type: "client_credentials",
    client_id: "client-1",
    resource: ARM,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: canaries.assertion,
  })
    ? token()
    : refuse();

const msi = (client: string | null): Services => ({
  [MSI]: ({ headers, isDirect, url }) =>
    headers.get("metadata") === "true" &&
    isDirect &&
    url.searchParams.get("api-version") === "2018-02-01" &&
    url.searchParams.get("resource") === ARM &&
    url.searchParams.get("client_id") === client
      ? token()
      : json({ error: "invalid_request", error_description: "Identity not found" }, 400),
});

const acr = (host: string, tenant: string | null = "tenant-1"): Services => ({
  [`POST https://${host}/oauth2/exchange`]: ({ form }) =>
    Bun.deepEquals(form, {
      grant_type: "access_token",
      service: host,
      ...(tenant === null ? {} : { tenant }),
      access_token: canaries.aad,
    })
      ? json({ refresh_token: canaries.refresh })
      : json({ errors: [{ code: "UNAUTHORIZED", message: canaries.aad }] }, 401),
});

describe("Azure", () => {
  test.each<[string, CloudWorldOptions, string]>([
    [
      "a client secret",
      { env: principal, services: { [AAD]: bySecret(ARM), ...acr("me.azurecr.io") } },
      "AZURE_CLIENT_SECRET",
    ],
    [
      "a federated token in a file",
      {
        env: {
          ...principal,
          AZURE_CLIENT_SECRET: "",
          AZURE_FEDERATED_TOKEN_FILE: "$ROOT/token",
          AZURE_AUTHORITY_HOST: "https://login.microsoftonline.com/",
        },
        files: { token: `${canaries.assertion}\n` },
        services: { [AAD]: byAssertion, ...acr("me.azurecr.io") },
      },
      "AZURE_FEDERATED_TOKEN_FILE",
    ],
    [
      "a federated token, before that of the file",
      {
        env: {
          ...principal,
          AZURE_CLIENT_SECRET: "",
          AZURE_FEDERATED_TOKEN: canaries.assertion,
          AZURE_FEDERATED_TOKEN_FILE: "/gone",
        },
        services: { [AAD]: byAssertion, ...acr("me.azurecr.io") },
      },
      "AZURE_FEDERATED_TOKEN",
    ],
    [
      "the machine's identity",
      { services: { ...msi(null), ...acr("me.azurecr.io", null) } },
      "the managed identity of this machine",
    ],
    [
      "an identity that the user chose",
      { env: { AZURE_CLIENT_ID: "client-2" }, services: { ...msi("client-2"), ...acr("me.azurecr.io", null) } },
      "the managed identity of this machine",
    ],
  ])("takes %s", async (_, options, source) => {
    using world = makeCloudWorld(options);
    expect(await world.ask(REPOSITORY)).toBe(`identity:${canaries.refresh} (Azure, with the token of ${source})`);
    expect(world.said.join("\n")).not.toContain("canary");
  });

  test("asks the cloud in AZURE_ENVIRONMENT", async () => {
    using world = makeCloudWorld({
      env: { ...principal, AZURE_ENVIRONMENT: "AzureChinaCloud" },
      services: {
        "POST https://login.chinacloudapi.cn/tenant-1/oauth2/token": bySecret("https://management.chinacloudapi.cn/"),
        ...acr("me.azurecr.cn"),
      },
    });
    expect(await world.ask("me.azurecr.cn/app")).toStartWith(`identity:${canaries.refresh}`);
  });

  test("asks the directory once for several registries", async () => {
    using world = makeCloudWorld({
      env: principal,
      services: { [AAD]: bySecret(ARM), ...acr("me.azurecr.io"), ...acr("you.azurecr.io") },
    });
    await Promise.all([world.find("me.azurecr.io/a"), world.find("me.azurecr.io/b"), world.find("you.azurecr.io/a")]);
    expect([...world.asked()].sort()).toEqual(
      [
        "POST https://login.microsoftonline.com/tenant-1/oauth2/token",
        EXCHANGE,
        "POST https://you.azurecr.io/oauth2/exchange",
      ].sort(),
    );
  });

  test("is asked for no other host", async () => {
    const services = new Proxy<Services>({}, { has: () => true, get: () => () => token() });
    using world = makeCloudWorld({ env: principal, services });
    for (const name of [
      "x.azurecr.io.evil.example/a",
      "evil-azurecr.io/a",
      "me.azurecr.io:8443/a",
      "mcr.microsoft.com/a",
    ]) {
      expect(await world.find(name)).toBeUndefined();
    }
    expect(world.calls).toEqual([]);
  });
});

describe("Azure gives none", () => {
  const file = "there is none for me.azurecr.io, and there is no configuration file of Docker or podman";
  const unset = "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are not all set";
  test.each<[string, CloudWorldOptions, string]>([
    [
      "nothing is there",
      {},
      `Azure has none: ${unset}, this machine has no managed identity (${MSI.replace(/metadata.*/, "…")})`,
    ],
    [
      "the machine has no such identity",
      { env: { AZURE_CLIENT_ID: "gone" }, services: msi(null) },
      `Azure has none: ${unset}, this machine has no managed identity (${MSI}?api-version=REDACTED&resource=REDACTED&client_id=REDACTED answered 400 (invalid_request))`,
    ],
    [
      "the directory refuses",
      { env: principal, services: { [AAD]: refuse } },
      `Azure gave none: ${AAD} answered 401 (AADSTS7000215), with AZURE_CLIENT_SECRET for client client-1`,
    ],
    [
      "the registry refuses",
      { env: principal, services: { [AAD]: () => token(), ...acr("me.azurecr.io", "other") } },
      `Azure gave none: ${EXCHANGE} answered 401 (UNAUTHORIZED), with the token of AZURE_CLIENT_SECRET`,
    ],
    [
      "the login host is not Azure's",
      { env: { ...principal, AZURE_AUTHORITY_HOST: "https://login.microsoftonline.com.evil.example/" } },
      "Azure gave none: AZURE_AUTHORITY_HOST is not a login host of Azure",
    ],
    [
      "the login host is not https",
      { env: { ...principal, AZURE_AUTHORITY_HOST: "http://login.microsoftonline.com/" } },
      "Azure gave none: AZURE_AUTHORITY_HOST is not a login host of Azure",
    ],
    [
      "the tenant is a path",
      { env: { ...principal, AZURE_TENANT_ID: "a/../b" } },
      "Azure gave none: AZURE_TENANT_ID is neither an id nor a domain",
    ],
    [
      "the cloud is unknown",
      { env: { ...principal, AZURE_ENVIRONMENT: "constructor" } },
      "Azure gave none: AZURE_ENVIRONMENT is not the name of a cloud",
    ],
  ])("if %s", async (_, options, wanted) => {
    using world = makeCloudWorld(options);
    const shown = (await world.ask(REPOSITORY)).replace(
      /GET http:\/\/169\.254\.169\.254\/metadata\S+: nothing.*?\)\)/,
      "GET http://169.254.169.254/…)",
    );
    const local = shown.replace(
      /\(GET http:\/\/127\.0\.0\.1:1\/: nothing listens there \(ECONNREFUSED\)\)/,
      "(GET http://169.254.169.254/…)",
    );
    expect(local).toBe(`${file}; ${wanted}`);
    expect(world.said.join("\n")).not.toContain("canary");
  });
});
