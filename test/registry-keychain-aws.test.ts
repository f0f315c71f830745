import { describe, expect, test } from "bun:test";
import {
  type CloudCall,
  type CloudWorldOptions,
  json,
  makeCloudWorld,
  type Services,
} from "./helpers/registry-clouds.ts";

const REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app";
const API = "POST https://api.ecr.eu-west-1.amazonaws.com/";
const STS = "POST https://sts.eu-west-1.amazonaws.com/";
const IMDS = "http://169.254.169.254/latest";
const PULL = { effort: "files", push: false } as const;

const canaries = {
  secret: "canary-secret/key+1",
  session: "canary-session-token",
  password: "canary-ecr-password",
  web: "canary.web.identity",
  metadata: "canary-imds-token",
  container: "canary-container-auth",
  sso: "canary-sso-token",
};
const KEYS = { AWS_ACCESS_KEY_ID: "AKIA1", AWS_SECRET_ACCESS_KEY: canaries.secret };
const token = Buffer.from(`AWS:${canaries.password}`).toString("base64");

/** What the signature says: `id/region/service`, and whether a session token came along. */
function signer({ headers }: CloudCall): string {
  const [, id, region, service] =
    /^AWS4-HMAC-SHA256 Credential=(\w+)\/\d{8}\/([\w-]+)\/([\w-]+)\/aws4_request, SignedHeaders=/.exec(
      headers.get("authorization") ?? "",
    ) ?? [];
  return [id, region, service, headers.get("x-amz-security-token") ?? "no session"].join(" ");
}

/** ECR's API: it notes who asked for what. */
function ecr(notes: string[] = []): Services {
  return {
    [API]: (call) => {
      notes.push(
        `${signer(call)} ${call.headers.get("x-amz-target")} ${call.headers.get("content-type")} ${call.body}`,
      );
      return json({ authorizationData: [{ authorizationToken: token, expiresAt: 4e9, proxyEndpoint: "https://x" }] });
    },
  };
}

const TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken application/x-amz-json-1.1";
const asked = (who: string): string => `${who} ${TARGET} {"registryIds":["123456789012"]}`;

/** STS answers in XML. */
const sts = (action: string, id: string): Response =>
  new Response(
    `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result><Credentials>` +
      `<AccessKeyId>${id}</AccessKeyId><SecretAccessKey>${canaries.secret}</SecretAccessKey>` +
      `<SessionToken>${canaries.session}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>` +
      `</Credentials></${action}Result></${action}Response>`,
    { headers: { "content-type": "text/xml" } },
  );

const stsError = (code: string): Response =>
  new Response(
    `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>canary-message</Message></Error></ErrorResponse>`,
    { status: 403 },
  );

const temporary = (id: string): Record<string, string> => ({
  Code: "Success",
  AccessKeyId: id,
  SecretAccessKey: canaries.secret,
  Token: canaries.session,
  Expiration: "2099-01-01T00:00:00Z",
});

/** Version 2 of the instance metadata service. */
const imds = (role = "node-role"): Services => ({
  [`PUT ${IMDS}/api/token`]: ({ headers }) =>
    headers.get("x-aws-ec2-metadata-token-ttl-seconds") === "21600"
      ? new Response(canaries.metadata)
      : new Response("", { status: 400 }),
  [`GET ${IMDS}/meta-data/iam/security-credentials/`]: ({ headers }) =>
    headers.get("x-aws-ec2-metadata-token") === canaries.metadata
      ? new Response(role)
      : new Response("", { status: 401 }),
  [`GET ${IMDS}/meta-data/iam/security-credentials/${role}`]: ({ headers }) =>
    headers.get("x-aws-ec2-metadata-token") === canaries.metadata
      ? json(temporary("ASIAEC2"))
      : new Response("", { status: 401 }),
});

const webIdentity: Services = {
  [STS]: ({ form }) => {
    const { Action, RoleArn, RoleSessionName, Version, WebIdentityToken } = form;
    const isRight =
      Action === "AssumeRoleWithWebIdentity" && Version === "2011-06-15" && WebIdentityToken === canaries.web;
    return isRight && RoleArn && RoleSessionName
      ? sts("AssumeRoleWithWebIdentity", "ASIAWEB")
      : stsError("InvalidIdentityToken");
  },
};

const config = (text: string): Readonly<Record<string, string>> => ({ ".aws/config": text });

describe("Amazon ECR", () => {
  const temporaryOf = (id: string): string => asked(`${id} eu-west-1 ecr ${canaries.session}`);
  const containerHost = "http://169.254.170.2";
  test.each<[string, CloudWorldOptions, string, string]>([
    ["keys in the environment", { env: KEYS }, asked("AKIA1 eu-west-1 ecr no session"), "AWS_ACCESS_KEY_ID"],
    [
      "temporary keys",
      { env: { ...KEYS, AWS_SESSION_TOKEN: canaries.session } },
      temporaryOf("AKIA1"),
      "AWS_ACCESS_KEY_ID",
    ],
    [
      "keys before all else, also before AWS_PROFILE",
      {
        env: { ...KEYS, AWS_PROFILE: "dev", AWS_WEB_IDENTITY_TOKEN_FILE: "$ROOT/token", AWS_ROLE_ARN: "r" },
        files: config("[profile dev]\naws_access_key_id = AKIA2\naws_secret_access_key = s\n"),
      },
      asked("AKIA1 eu-west-1 ecr no session"),
      "AWS_ACCESS_KEY_ID",
    ],
    [
      "a web identity",
      {
        env: { AWS_WEB_IDENTITY_TOKEN_FILE: "$ROOT/token", AWS_ROLE_ARN: "arn:aws:iam::1:role/ci" },
        files: { token: `${canaries.web}\n` },
        services: webIdentity,
      },
      temporaryOf("ASIAWEB"),
      "the role arn:aws:iam::1:role/ci",
    ],
    [
      "the default profile in the credentials file",
      {
        files: {
          ".aws/credentials": `[default]\naws_access_key_id=AKIA2\naws_secret_access_key = ${canaries.secret}\n`,
        },
      },
      asked("AKIA2 eu-west-1 ecr no session"),
      'profile "default"',
    ],
    [
      "a named profile, whose secrets are in the credentials file",
      {
        env: { AWS_PROFILE: "dev" },
        files: {
          ".aws/config":
            "# comment\n[profile dev]\nregion = us-east-1\naws_access_key_id = AKIAOLD\ns3 =\n  aws_access_key_id = nested\n",
          ".aws/credentials": `[dev]\naws_access_key_id = AKIA3 ; mine\naws_secret_access_key = ${canaries.secret}\naws_session_token = ${canaries.session}\n`,
        },
      },
      temporaryOf("AKIA3"),
      'profile "dev"',
    ],
    [
      "a role of a profile with a source_profile",
      {
        env: { AWS_PROFILE: "role", AWS_CONFIG_FILE: "$ROOT/c" },
        files: {
          c: `[default]\naws_access_key_id = AKIA4\naws_secret_access_key = s\n[profile role]\nrole_arn = arn:r\nsource_profile = default\nexternal_id = ext\nrole_session_name = me\n`,
        },
        services: {
          [STS]: (call) => {
            const { Action, ExternalId, RoleArn, RoleSessionName } = call.form;
            const said = [signer(call), Action, RoleArn, RoleSessionName, ExternalId].join(" ");
            return said === "AKIA4 eu-west-1 sts no session AssumeRole arn:r me ext"
              ? sts("AssumeRole", "ASIAROLE")
              : stsError("AccessDenied");
          },
        },
      },
      temporaryOf("ASIAROLE"),
      'the role arn:r of profile "role"',
    ],
    [
      "a role of a profile with keys of its own",
      {
        files: config(
          "[default]\naws_access_key_id = AKIA4\naws_secret_access_key = s\nrole_arn = arn:r\nsource_profile = default\n",
        ),
        services: {
          [STS]: (call) =>
            signer(call).startsWith("AKIA4 ") ? sts("AssumeRole", "ASIAROLE") : stsError("AccessDenied"),
        },
      },
      temporaryOf("ASIAROLE"),
      'the role arn:r of profile "default"',
    ],
    [
      "a role of a profile by the instance",
      {
        files: config("[default]\nrole_arn = arn:r\ncredential_source = Ec2InstanceMetadata\n"),
        services: {
          ...imds(),
          [STS]: (call) =>
            signer(call) === `ASIAEC2 eu-west-1 sts ${canaries.session}`
              ? sts("AssumeRole", "ASIAROLE")
              : stsError("AccessDenied"),
        },
      },
      temporaryOf("ASIAROLE"),
      'the role arn:r of profile "default"',
    ],
    [
      "a web identity of a profile",
      {
        files: {
          ...config("[default]\nrole_arn = arn:r\nweb_identity_token_file = $ROOT/token\n"),
          token: canaries.web,
        },
        services: webIdentity,
      },
      temporaryOf("ASIAWEB"),
      "the role arn:r",
    ],
    [
      "a credential_process",
      {
        files: {
          ...config(`[default]\ncredential_process = "$ROOT/bin/keys" --for "a b"\n`),
          "bin/keys": {
            executable: `#!/bin/sh\ntest "$2" = "a b" && echo '{"Version":1,"AccessKeyId":"AKIA5","SecretAccessKey":"${canaries.secret}","SessionToken":"${canaries.session}"}'\n`,
          },
        },
      },
      temporaryOf("AKIA5"),
      'profile "default"',
    ],
    [
      "single sign-on",
      {
        env: { AWS_PROFILE: "sso" },
        files: {
          ...config(
            "[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n[profile sso]\nsso_session = corp\nsso_account_id = 111\nsso_role_name = dev\n",
          ),
          [`.aws/sso/cache/${new Bun.CryptoHasher("sha1").update("corp").digest("hex")}.json`]: JSON.stringify({
            accessToken: canaries.sso,
            expiresAt: "2099-01-01T00:00:00Z",
          }),
        },
        services: {
          "GET https://portal.sso.us-east-1.amazonaws.com/federation/credentials": ({ headers, url }) =>
            headers.get("x-amz-sso_bearer_token") === canaries.sso && url.search === "?account_id=111&role_name=dev"
              ? json({
                  roleCredentials: {
                    accessKeyId: "ASIASSO",
                    secretAccessKey: canaries.secret,
                    sessionToken: canaries.session,
                    expiration: 4e12,
                  },
                })
              : json({ message: "no" }, 401),
        },
      },
      temporaryOf("ASIASSO"),
      'profile "sso"',
    ],
    [
      "the container (ECS)",
      {
        env: { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/v2/credentials/1" },
        services: {
          [`GET ${containerHost}/v2/credentials/1`]: ({ isDirect }) =>
            isDirect ? json(temporary("ASIAECS")) : json({}, 500),
        },
      },
      temporaryOf("ASIAECS"),
      "the container (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)",
    ],
    [
      "the container (EKS), with a token from a file",
      {
        env: {
          AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://169.254.170.23/v1/credentials",
          AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: "$ROOT/token",
          AWS_CONTAINER_AUTHORIZATION_TOKEN: "other",
        },
        files: { token: `${canaries.container}\n` },
        services: {
          "GET http://169.254.170.23/v1/credentials": ({ headers }) =>
            headers.get("authorization") === canaries.container ? json(temporary("ASIAEKS")) : json({}, 403),
        },
      },
      temporaryOf("ASIAEKS"),
      "the container (AWS_CONTAINER_CREDENTIALS_FULL_URI)",
    ],
    ["the instance", { services: imds() }, temporaryOf("ASIAEC2"), "the instance role node-role"],
  ])("is asked with %s", async (_, options, who, source) => {
    const notes: string[] = [];
    using world = makeCloudWorld({ ...options, services: { ...ecr(notes), ...options.services } });
    expect(await world.ask(REPOSITORY)).toBe(`AWS:${canaries.password} (AWS, with the keys of ${source})`);
    expect(notes).toEqual([who]);
    for (const secret of Object.values(canaries)) expect(world.said.join("\n")).not.toContain(secret);
  });

  test("is asked for the public gallery", async () => {
    using world = makeCloudWorld({
      env: KEYS,
      services: {
        "POST https://api.ecr-public.us-east-1.amazonaws.com/": (call) =>
          [signer(call), call.headers.get("x-amz-target"), call.body].join(" ") ===
          "AKIA1 us-east-1 ecr-public no session SpencerFrontendService.GetAuthorizationToken {}"
            ? json({ authorizationData: { authorizationToken: token, expiresAt: 4e9 } })
            : json({}, 400),
      },
    });
    expect(await world.ask("public.ecr.aws/x/y")).toStartWith(`AWS:${canaries.password} `);
  });

  test("is asked once per run, by however many repositories at once", async () => {
    using world = makeCloudWorld({ services: { ...imds(), ...ecr() } });
    const names = ["a", "b", "c"].map((name) => `${REPOSITORY}/${name}`);
    await Promise.all(names.map((name) => world.find(name)));
    expect(world.asked()).toEqual([...Object.keys(imds()), API]);
  });

  test("is not asked for a pull before the registry has refused it", async () => {
    using world = makeCloudWorld({ env: KEYS, services: { ...imds(), ...ecr() } });
    expect(await world.find(REPOSITORY, PULL)).toBeUndefined();
    expect(world.calls).toEqual([]);
  });

  test("comes before a login in a file, which is used if AWS has none", async () => {
    const auth = Buffer.from("AWS:from-file").toString("base64");
    const files = { ".docker/config.json": JSON.stringify({ auths: { [REPOSITORY.replace("/app", "")]: { auth } } }) };
    using rich = makeCloudWorld({ env: KEYS, files, services: ecr() });
    expect(await rich.ask(REPOSITORY)).toStartWith(`AWS:${canaries.password} `);
    using poor = makeCloudWorld({ files });
    expect(await poor.ask(REPOSITORY)).toStartWith("AWS:from-file (auths entry ");
  });

  test("is asked no longer than its time", async () => {
    using world = makeCloudWorld({ services: { [`PUT ${IMDS}/api/token`]: () => undefined }, patience: 50 });
    expect(await world.ask(REPOSITORY)).toContain("no instance metadata service answers at 169.254.169.254");
  });
});

describe("AWS gives none", () => {
  const nothing = 'AWS_ACCESS_KEY_ID is not set, profile "default" in $ROOT/.aws/config has no keys';
  const file =
    "there is none for 123456789012.dkr.ecr.eu-west-1.amazonaws.com, and there is no configuration file of Docker or podman";
  test.each<[string, CloudWorldOptions, string]>([
    [
      "nothing is there",
      {},
      `AWS has none: ${nothing}, no instance metadata service answers at 169.254.169.254; ${file}`,
    ],
    [
      "the metadata service is disabled",
      { env: { AWS_EC2_METADATA_DISABLED: "true" }, services: imds() },
      `AWS has none: ${nothing}, AWS_EC2_METADATA_DISABLED is true; ${file}`,
    ],
    [
      "there is version 1 of the metadata service only",
      { services: { [`GET ${IMDS}/meta-data/iam/security-credentials/`]: () => new Response("role") } },
      `AWS has none: ${nothing}, no instance metadata service answers at 169.254.169.254; ${file}`,
    ],
    [
      "the instance has no role",
      {
        services: {
          ...imds(),
          [`GET ${IMDS}/meta-data/iam/security-credentials/`]: () => new Response("", { status: 404 }),
        },
      },
      `AWS has none: ${nothing}, the instance has no role; ${file}`,
    ],
    [
      "ECR refuses the keys",
      {
        env: KEYS,
        services: {
          [API]: () => json({ __type: "com.amazon#UnrecognizedClientException", message: canaries.secret }, 400),
        },
      },
      `AWS gave none: ${API} answered 400 (UnrecognizedClientException), with the keys of AWS_ACCESS_KEY_ID; ${file}`,
    ],
    [
      "ECR answers without a token",
      { env: KEYS, services: { [API]: () => json({ authorizationData: [] }) } },
      `AWS gave none: ${API} answered without a token; ${file}`,
    ],
    [
      "STS refuses the token",
      {
        env: { AWS_WEB_IDENTITY_TOKEN_FILE: "$ROOT/token", AWS_ROLE_ARN: "arn:r" },
        files: { token: "expired-canary" },
        services: { [STS]: () => stsError("ExpiredTokenException") },
      },
      `AWS gave none: ${STS} answered 403 (ExpiredTokenException), with the token of "$ROOT/token" for arn:r; ${file}`,
    ],
    [
      "the token's file is missing",
      { env: { AWS_WEB_IDENTITY_TOKEN_FILE: "$ROOT/token", AWS_ROLE_ARN: "arn:r" } },
      `AWS gave none: AWS_WEB_IDENTITY_TOKEN_FILE "$ROOT/token" cannot be read: ENOENT: no such file or directory, open '$ROOT/token'; ${file}`,
    ],
    [
      "the role of the token is not named",
      { env: { AWS_WEB_IDENTITY_TOKEN_FILE: "$ROOT/token" }, files: { token: "t" } },
      `AWS gave none: there is a web identity token in "$ROOT/token", but AWS_ROLE_ARN is not set; ${file}`,
    ],
    [
      "the profile does not exist",
      { env: { AWS_PROFILE: "gone" } },
      `AWS gave none: profile "gone", which AWS_PROFILE names, is neither in $ROOT/.aws/config nor in $ROOT/.aws/credentials; ${file}`,
    ],
    [
      "the source_profile does not exist",
      { files: config("[default]\nrole_arn=r\nsource_profile=gone\n") },
      `AWS gave none: profile "gone", the source_profile of "default", does not exist; ${file}`,
    ],
    [
      "the source_profiles lead in a circle",
      { files: config("[default]\nrole_arn=r\nsource_profile=a\n[profile a]\nrole_arn=r\nsource_profile=default\n") },
      `AWS gave none: the source_profile of profile "a" leads in a circle; ${file}`,
    ],
    [
      "the role wants a code",
      {
        files: config(
          "[default]\nrole_arn=r\nsource_profile=default\nmfa_serial=m\naws_access_key_id=a\naws_secret_access_key=s\n",
        ),
      },
      `AWS gave none: profile "default" wants a code for its mfa_serial, ko cannot ask for one; ${file}`,
    ],
    [
      "the credential_process fails",
      {
        files: config(
          "[default]\ncredential_process = echo canary-secret/key+1; echo canary-secret/key+1 >&2; exit 4\n",
        ),
      },
      `AWS gave none: the credential_process of profile "default" has exit code 4; ${file}`,
    ],
    [
      "the sign-on has ended",
      {
        files: config("[default]\nsso_start_url=https://x\nsso_region=us-east-1\nsso_account_id=1\nsso_role_name=r\n"),
      },
      `AWS gave none: the single sign-on of profile "default" has ended, or was not begun, try: aws sso login --profile default; ${file}`,
    ],
  ])("if %s", async (_, options, wanted) => {
    using world = makeCloudWorld({ ...options, services: { ...ecr(), ...options.services } });
    expect(await world.ask(REPOSITORY)).toBe(wanted);
    for (const secret of [...Object.values(canaries), "expired-canary"]) {
      expect(world.said.join("\n")).not.toContain(secret);
    }
  });

  test.each<[string, Readonly<Record<string, string>>, string]>([
    [
      "a metadata service elsewhere",
      { AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://10.0.0.1" },
      "AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address of the instance metadata service",
    ],
    [
      "a metadata service by name",
      { AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://169.254.169.254.evil.example" },
      "AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address of the instance metadata service",
    ],
    [
      "a container's address over http",
      { AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://evil.example/x" },
      "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an address of a container's credentials",
    ],
    [
      "a container's path that is another host",
      { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "@evil.example/x" },
      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is neither https nor an address of a container's credentials",
    ],
    [
      "a container's path that is another container",
      { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "@localhost/x" },
      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path",
    ],
    [
      "a token of two lines",
      { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/x", AWS_CONTAINER_AUTHORIZATION_TOKEN: "a\r\nX: b" },
      "the container's authorization token has more than one line",
    ],
  ])("and is not asked at %s", async (_, env, why) => {
    const services = new Proxy<Services>({}, { has: () => true, get: () => () => json(temporary("EVIL")) });
    using world = makeCloudWorld({
      env: {
        ...env,
        AWS_CONTAINER_AUTHORIZATION_TOKEN: env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] ?? canaries.container,
      },
      services,
    });
    expect(await world.ask(REPOSITORY)).toStartWith(`AWS gave none: ${why}`);
    expect(world.calls).toEqual([]);
  });

  test("and addresses of AWS_ENDPOINT_URL are not asked", async () => {
    using world = makeCloudWorld({
      env: { ...KEYS, AWS_ENDPOINT_URL: "http://evil.example", AWS_ENDPOINT_URL_ECR: "http://evil.example" },
      services: ecr(),
    });
    await world.find(REPOSITORY);
    expect(world.asked()).toEqual([API]);
  });

  test("a region in a file cannot name another host", async () => {
    const text = "[default]\nsso_start_url=x\nsso_region=evil.example/\nsso_account_id=1\nsso_role_name=r\n";
    using world = makeCloudWorld({ files: config(text) });
    expect(await world.ask(REPOSITORY)).toStartWith(
      'AWS gave none: the sso_region of profile "default" is not a region',
    );
  });
});
