import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, verify } from "node:crypto";
import {
  type CloudCall,
  type CloudWorldOptions,
  json,
  makeCloudWorld,
  type Service,
} from "./helpers/registry-clouds.ts";
import type { TreeEntry } from "./helpers/world-folders.ts";

const REPOSITORY = "europe-west1-docker.pkg.dev/project/repo/app";
const TOKEN = "POST https://oauth2.googleapis.com/token";
const STS = "POST https://sts.googleapis.com/v1/token";
const IAM =
  "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/sa@p.iam.gserviceaccount.com:generateAccessToken";
const METADATA = "GET http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token";
const SCOPE = "https://www.googleapis.com/auth/cloud-platform";
const ADC = ".config/gcloud/application_default_credentials.json";

const canaries = {
  token: "canary.access-token",
  other: "canary.second-token",
  secret: "canary-client-secret",
  refresh: "canary-refresh/token",
  subject: "canary.subject.token",
  header: "canary-request-token",
};
const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const pem = privateKey.export({ type: "pkcs8", format: "pem" });
const key = {
  type: "service_account",
  client_email: "ci@p.iam.gserviceaccount.com",
  private_key_id: "k1",
  private_key: pem,
  token_uri: "https://oauth2.googleapis.com/token",
};
const user = {
  type: "authorized_user",
  client_id: "id",
  client_secret: canaries.secret,
  refresh_token: canaries.refresh,
};
const external = (more: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({
    type: "external_account",
    audience: "//iam.googleapis.com/projects/1/pool",
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    token_url: "https://sts.googleapis.com/v1/token",
    ...more,
  });

const give = (token: string = canaries.token): Response =>
  json({ access_token: token, expires_in: 3599, token_type: "Bearer" });
const refuse = (error: string, status = 400): Response =>
  json({ error, error_description: `canary-description ${canaries.refresh}` }, status);

/** Google's token service checks the assertion as its documentation says. */
const checkAssertion: Service = ({ form }) => {
  const [header = "", claims = "", signature = ""] = (form["assertion"] ?? "").split(".");
  const isSigned = verify("sha256", Buffer.from(`${header}.${claims}`), publicKey, Buffer.from(signature, "base64url"));
  const read = (part: string): Record<string, unknown> => JSON.parse(Buffer.from(part, "base64url").toString());
  const { aud, exp, iat, iss, scope } = read(claims);
  const isRight =
    form["grant_type"] === "urn:ietf:params:oauth:grant-type:jwt-bearer" &&
    Bun.deepEquals(read(header), { alg: "RS256", typ: "JWT", kid: "k1" }) &&
    iss === key.client_email &&
    aud === key.token_uri &&
    scope === SCOPE &&
    typeof iat === "number" &&
    Math.abs(iat - Date.now() / 1000) < 60 &&
    exp === iat + 3600;
  return isSigned && isRight ? give() : refuse("invalid_grant");
};

const checkExchange: Service = ({ form }) => {
  const wanted = {
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    audience: "//iam.googleapis.com/projects/1/pool",
    scope: SCOPE,
    requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
    subject_token: canaries.subject,
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
  };
  return Bun.deepEquals(form, wanted) ? give() : refuse("invalid_request");
};

const checkImpersonation: Service = ({ body, headers }: CloudCall) =>
  headers.get("authorization") === `Bearer ${canaries.token}` &&
  Bun.deepEquals(JSON.parse(body), { lifetime: "3600s", scope: [SCOPE] })
    ? json({ accessToken: canaries.other, expireTime: "2099-01-01T00:00:00Z" })
    : json({ error: { code: 403, status: "PERMISSION_DENIED", message: "canary-message" } }, 403);

const checkMetadata: Service = ({ headers, isDirect, url }) =>
  headers.get("metadata-flavor") === "Google" && isDirect && url.searchParams.get("scopes") === SCOPE
    ? new Response(JSON.stringify({ access_token: canaries.token, expires_in: 3599 }), {
        headers: { "metadata-flavor": "Google" },
      })
    : new Response("", { status: 403 });

const gcloud = (script: string): Readonly<Record<string, TreeEntry>> => ({
  "bin/gcloud": { executable: `#!/bin/sh\necho "$*" > $ROOT/asked\n${script}\n` },
});
const working = `echo '{"credential":{"access_token":"${canaries.token}","token_expiry":"2099-01-01T00:00:00Z"}}'`;

describe("Google", () => {
  const named = { GOOGLE_APPLICATION_CREDENTIALS: "$ROOT/key.json" };
  test.each<[string, CloudWorldOptions, string]>([
    [
      "a key of a service account",
      { env: named, files: { "key.json": JSON.stringify(key) }, services: { [TOKEN]: checkAssertion } },
      `${canaries.token} (Google, with the token of ci@p.iam.gserviceaccount.com in $ROOT/key.json)`,
    ],
    [
      "an old key, at the present address",
      {
        env: named,
        files: { "key.json": JSON.stringify({ ...key, token_uri: "https://accounts.google.com/o/oauth2/token" }) },
        services: { [TOKEN]: checkAssertion },
      },
      `${canaries.token} (Google, with the token of ci@p.iam.gserviceaccount.com in $ROOT/key.json)`,
    ],
    [
      "a login of a user, in the default file",
      {
        files: { [ADC]: JSON.stringify({ ...user, token_uri: "https://evil.example" }) },
        services: {
          [TOKEN]: ({ form }) =>
            Bun.deepEquals(form, {
              grant_type: "refresh_token",
              client_id: "id",
              client_secret: canaries.secret,
              refresh_token: canaries.refresh,
            })
              ? give()
              : refuse("invalid_grant"),
        },
      },
      `${canaries.token} (Google, with the token of $ROOT/${ADC})`,
    ],
    [
      "another system's token in a file",
      {
        env: named,
        files: {
          "key.json": external({ credential_source: { file: "$ROOT/subject" } }),
          subject: `${canaries.subject}\n`,
        },
        services: { [STS]: checkExchange },
      },
      `${canaries.token} (Google, with the token of the identity in $ROOT/key.json)`,
    ],
    [
      "another system's token in JSON, for a service account",
      {
        env: named,
        files: {
          "key.json": external({
            credential_source: { file: "$ROOT/subject", format: { type: "json", subject_token_field_name: "jwt" } },
            service_account_impersonation_url: IAM,
          }),
          subject: JSON.stringify({ jwt: canaries.subject }),
        },
        services: { [STS]: checkExchange, [`POST ${IAM}`]: checkImpersonation },
      },
      `${canaries.other} (Google, with the token of sa@p.iam.gserviceaccount.com in $ROOT/key.json)`,
    ],
    [
      "a token of GitHub Actions",
      {
        env: named,
        files: {
          "key.json": external({
            credential_source: {
              url: "https://pipelines.actions.githubusercontent.com/x/idtoken?api-version=2.0&audience=a",
              headers: { Authorization: `Bearer ${canaries.header}` },
              format: { type: "json", subject_token_field_name: "value" },
            },
          }),
        },
        services: {
          "GET https://pipelines.actions.githubusercontent.com/x/idtoken": ({ headers, url }) =>
            headers.get("authorization") === `Bearer ${canaries.header}` && url.search === "?api-version=2.0&audience=a"
              ? json({ value: canaries.subject })
              : json({}, 401),
          [STS]: checkExchange,
        },
      },
      `${canaries.token} (Google, with the token of the identity in $ROOT/key.json)`,
    ],
    [
      "a token of Azure's metadata service",
      {
        env: named,
        files: {
          "key.json": external({
            credential_source: {
              url: "http://169.254.169.254/metadata/identity/oauth2/token?resource=r",
              headers: { Metadata: "True" },
              format: { type: "json", subject_token_field_name: "access_token" },
            },
          }),
        },
        services: {
          "GET http://169.254.169.254/metadata/identity/oauth2/token": ({ headers, isDirect }) =>
            headers.get("metadata") === "True" && isDirect ? json({ access_token: canaries.subject }) : json({}, 400),
          [STS]: checkExchange,
        },
      },
      `${canaries.token} (Google, with the token of the identity in $ROOT/key.json)`,
    ],
    [
      "a token that a program prints",
      {
        env: { ...named, GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES: "1" },
        files: {
          "key.json": external({
            credential_source: { executable: { command: "$ROOT/bin/print --now" } },
            service_account_impersonation_url: IAM,
          }),
          "bin/print": {
            executable: `#!/bin/sh
test "$1 $GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE $GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE $GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL" = "--now //iam.googleapis.com/projects/1/pool 0 sa@p.iam.gserviceaccount.com" &&
echo '{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:jwt","id_token":"${canaries.subject}","expiration_time":4000000000}'
`,
          },
        },
        services: { [STS]: checkExchange, [`POST ${IAM}`]: checkImpersonation },
      },
      `${canaries.other} (Google, with the token of sa@p.iam.gserviceaccount.com in $ROOT/key.json)`,
    ],
    [
      "an impersonated service account",
      {
        env: named,
        files: {
          "key.json": JSON.stringify({
            type: "impersonated_service_account",
            source_credentials: user,
            service_account_impersonation_url: IAM,
          }),
        },
        services: { [TOKEN]: () => give(), [`POST ${IAM}`]: checkImpersonation },
      },
      `${canaries.other} (Google, with the token of sa@p.iam.gserviceaccount.com in $ROOT/key.json)`,
    ],
    [
      "the metadata server",
      { services: { [METADATA]: checkMetadata } },
      `${canaries.token} (Google, with the token of the machine's service account)`,
    ],
    [
      "another metadata server",
      {
        env: { GCE_METADATA_HOST: "127.0.0.1:8080" },
        services: { [METADATA.replace("169.254.169.254", "127.0.0.1:8080")]: checkMetadata },
      },
      `${canaries.token} (Google, with the token of the machine's service account)`,
    ],
    ["gcloud", { files: gcloud(working) }, `${canaries.token} (Google, with the token of gcloud)`],
    [
      "gcloud, if the default credentials fail",
      {
        files: { ...gcloud(working), [ADC]: JSON.stringify(user) },
        services: { [TOKEN]: () => refuse("invalid_grant") },
      },
      `${canaries.token} (Google, with the token of gcloud)`,
    ],
  ])("takes %s", async (_, options, wanted) => {
    using world = makeCloudWorld(options);
    expect(await world.ask(REPOSITORY)).toBe(`_token:${wanted}`);
    for (const secret of [...Object.values(canaries), pem]) expect(world.said.join("\n")).not.toContain(secret);
  });

  test("asks gcloud as docker-credential-gcr does", async () => {
    using world = makeCloudWorld({ files: gcloud(working) });
    await world.find(REPOSITORY);
    expect(await Bun.file(world.tree.at("asked")).text()).toBe(
      "config config-helper --force-auth-refresh --format=json(credential)\n",
    );
  });

  test("is asked once for all of its hosts", async () => {
    using world = makeCloudWorld({ services: { [METADATA]: checkMetadata } });
    await Promise.all(["gcr.io/a/b", "eu.gcr.io/a/b", REPOSITORY, `${REPOSITORY}2`].map((name) => world.find(name)));
    expect(world.asked()).toEqual([METADATA]);
  });

  test("is not asked for a pull, nor if a file has a login", async () => {
    const auth = Buffer.from("_json_key:x").toString("base64");
    using world = makeCloudWorld({
      services: { [METADATA]: checkMetadata },
      files: { ".docker/config.json": JSON.stringify({ auths: { "gcr.io": { auth } } }) },
    });
    expect(await world.find("eu.gcr.io/a/b", { effort: "files", push: false })).toBeUndefined();
    expect(await world.ask("gcr.io/a/b")).toStartWith("_json_key:x ");
    expect(world.calls).toEqual([]);
  });
});

describe("Google gives none", () => {
  const named = { GOOGLE_APPLICATION_CREDENTIALS: "$ROOT/key.json" };
  const file = "there is none for europe-west1-docker.pkg.dev, and there is no configuration file of Docker or podman";
  const nothing = `${file}; Google has none: GOOGLE_APPLICATION_CREDENTIALS is not set, $ROOT/${ADC} does not exist`;
  const with_ = (text: string): CloudWorldOptions => ({ env: named, files: { "key.json": text } });
  test.each<[string, CloudWorldOptions, string]>([
    [
      "nothing is there",
      {},
      `${nothing}, no metadata server of Google answers at 169.254.169.254, gcloud is not on PATH`,
    ],
    [
      "the metadata server is silent",
      { services: { [METADATA]: () => undefined }, patience: 50 },
      `${nothing}, no metadata server of Google answers at 169.254.169.254, gcloud is not on PATH`,
    ],
    [
      "another server is there",
      { services: { [METADATA]: () => json({ access_token: canaries.token }) } },
      `${nothing}, no metadata server of Google answers at 169.254.169.254, gcloud is not on PATH`,
    ],
    [
      "the machine has no service account",
      { services: { [METADATA]: () => new Response("", { status: 404, headers: { "metadata-flavor": "Google" } }) } },
      `${nothing}, the machine has no service account, gcloud is not on PATH`,
    ],
    [
      "the file is missing",
      { env: named },
      `${file}; Google gave none: GOOGLE_APPLICATION_CREDENTIALS "$ROOT/key.json" cannot be read: ENOENT: no such file or directory, open '$ROOT/key.json'`,
    ],
    ["the file is not JSON", with_("canary-secret"), `${file}; Google gave none: $ROOT/key.json is not a JSON object`],
    [
      "its type is unknown",
      with_('{"type":"canary-secret"}'),
      `${file}; Google gave none: $ROOT/key.json has credentials of a type that ko does not know`,
    ],
    [
      "the key is not a key",
      with_(JSON.stringify({ ...key, private_key: "canary-secret" })),
      `${file}; Google gave none: the private_key in $ROOT/key.json is not a private key in PEM`,
    ],
    [
      "the key has no e-mail",
      with_(JSON.stringify({ ...key, client_email: 1 })),
      `${file}; Google gave none: $ROOT/key.json has no client_email`,
    ],
    [
      "Google refuses the key",
      { ...with_(JSON.stringify(key)), services: { [TOKEN]: () => refuse("invalid_grant") } },
      `${file}; Google gave none: ${TOKEN} answered 400 (invalid_grant), with the key of ci@p.iam.gserviceaccount.com in $ROOT/key.json`,
    ],
    [
      "Google echoes a secret as a code",
      { ...with_(JSON.stringify(user)), services: { [TOKEN]: () => refuse(canaries.secret) } },
      `${file}; Google gave none: ${TOKEN} answered 400, with the login in $ROOT/key.json`,
    ],
    [
      "Google may not impersonate",
      {
        ...with_(
          JSON.stringify({
            type: "impersonated_service_account",
            source_credentials: user,
            service_account_impersonation_url: IAM,
          }),
        ),
        services: { [TOKEN]: () => give("another"), [`POST ${IAM}`]: checkImpersonation },
      },
      `${file}; Google gave none: POST ${IAM} answered 403 (PERMISSION_DENIED), with the token of $ROOT/key.json for sa@p.iam.gserviceaccount.com`,
    ],
    [
      "a program is not allowed",
      with_(external({ credential_source: { executable: { command: "false" } } })),
      `${file}; Google gave none: $ROOT/key.json wants to run a program, which must be allowed, try: export GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1`,
    ],
    [
      "gcloud fails",
      { files: gcloud("echo canary-secret; echo canary-secret >&2; exit 1") },
      `${file}; Google gave none: gcloud config config-helper has exit code 1`,
    ],
    [
      "gcloud prints something else",
      { files: gcloud("echo canary-secret") },
      `${file}; Google gave none: gcloud config config-helper printed no token, try: gcloud auth login`,
    ],
  ])("if %s", async (_, options, wanted) => {
    using world = makeCloudWorld(options);
    expect(await world.ask(REPOSITORY)).toBe(wanted);
    expect(world.said.join("\n")).not.toContain("canary");
  });

  const evil = [
    "https://evil.example/token",
    "http://oauth2.googleapis.com/token",
    "https://oauth2.googleapis.com.evil.example/",
    "https://oauth2.googleapis.com:8443/",
    "https://me:pw@sts.googleapis.com/",
    "https://bucket.storage.googleapis.com/x",
    "https://evil-googleapis.com/",
    "file:///etc/passwd",
    1,
  ];
  test.each(
    evil.flatMap((url) => [
      [url, "token_uri", JSON.stringify({ ...key, token_uri: url })] as const,
      [url, "token_url", external({ token_url: url, credential_source: { file: "$ROOT/key.json" } })] as const,
      [
        url,
        "service_account_impersonation_url",
        external({ service_account_impersonation_url: url, credential_source: { file: "$ROOT/key.json" } }),
      ] as const,
    ]),
  )("and sends nothing to %p, the %s of a file", async (_, name, text) => {
    const services = new Proxy({}, { has: () => true, get: () => () => give() });
    using world = makeCloudWorld({ ...with_(text), services });
    expect(await world.ask(REPOSITORY)).toEndWith(
      `the ${name} in $ROOT/key.json is not a token service of Google, so nothing was sent there`,
    );
    expect(world.calls).toEqual([]);
  });

  test.each([
    "https://evil.example/x",
    "http://pipelines.actions.githubusercontent.com/",
    "https://actions.githubusercontent.com.evil.example/",
    "http://169.254.169.254:81/",
    "http://127.0.0.1/",
    "https://u:p@x.actions.githubusercontent.com/",
  ])("and asks no subject token at %s", async (url) => {
    const services = new Proxy({}, { has: () => true, get: () => () => give() });
    using world = makeCloudWorld({
      ...with_(external({ credential_source: { url, headers: { Authorization: canaries.header } } })),
      services,
    });
    expect(await world.ask(REPOSITORY)).toEndWith(
      "the credential_source.url in $ROOT/key.json is not one of GitHub Actions or Azure; use a file instead",
    );
    expect(world.calls).toEqual([]);
  });

  test.each(["evil.example", "8.8.8.8", "169.254.169.254/x?", "me@169.254.169.254", "10.0.0.1"])(
    "and asks no metadata server at %s",
    async (host) => {
      const services = new Proxy({}, { has: () => true, get: () => () => give() });
      using world = makeCloudWorld({ env: { GCE_METADATA_HOST: host }, services });
      expect(await world.ask(REPOSITORY)).toEndWith(
        "Google gave none: GCE_METADATA_HOST is not an address of the metadata server",
      );
      expect(world.calls).toEqual([]);
    },
  );
});
