/** The compiled program logs in, and finds the credentials of clouds: real TLS to their names, a real registry behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { type Internet, makeInternet, passTo, type Site } from "./helpers/registry-clouds.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { type Folder, makeFolder, type Tree, writeTree } from "./helpers/world-folders.ts";
import { type Result, runToEnd } from "./helpers/world-programs.ts";

const missing = whyNoRegistry() !== undefined;
const source = dirname(import.meta.dir);
const PATIENCE = 120_000;
const ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GOOGLE = "europe-west1-docker.pkg.dev";
const AZURE = "me.azurecr.io";
const GITHUB = "ghcr.io";

const canaries = {
  login: "canary-login/pass&word",
  awsSecret: "canary-aws-secret+key",
  awsSession: "canary-aws-session",
  awsPassword: "canary-ecr-password",
  azureSecret: "canary-azure-secret",
  azureToken: "canary.azure.token",
  acrRefresh: "canary.acr.refresh",
  registryToken: "canary.registry.token",
  googleSecret: "canary-google-secret",
  googleRefresh: "canary-google-refresh",
  googleToken: "canary.google.token",
  github: "canary_github_token",
};

let folder: Folder;
let ko: string;
let app: Tree;
let open: TestRegistry;
let closed: TestRegistry;
let internet: Internet;

const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
const json = (value: unknown, status = 200): Response => Response.json(value, { status });
const challenge = (value: string): Response =>
  new Response('{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', {
    status: 401,
    headers: { "www-authenticate": value },
  });

/** A registry that wants Basic. */
const basicSite =
  (authorization: string): Site =>
  (visit, request) =>
    visit.headers.get("authorization") === authorization
      ? passTo(open.host, visit, request)
      : challenge('Basic realm="x",service="ecr.amazonaws.com"');

/** A registry with a token server of its own, which knows a credential. */
const bearerSite =
  (host: string, isKnown: (visit: Parameters<Site>[0]) => boolean): Site =>
  (visit, request) => {
    const { headers, url } = visit;
    if (url.pathname === "/oauth2/token" || url.pathname === "/v2/token") {
      return isKnown(visit)
        ? json({ access_token: canaries.registryToken })
        : json({ errors: [{ code: "DENIED" }] }, 401);
    }
    if (headers.get("authorization") === `Bearer ${canaries.registryToken}`) return passTo(open.host, visit, request);
    const realm = host === AZURE ? `https://${host}/oauth2/token` : `https://${host}/v2/token`;
    return challenge(`Bearer realm="${realm}",service="${host}"`);
  };

const sites: Readonly<Record<string, Site>> = {
  [ECR]: basicSite(basic("AWS", canaries.awsPassword)),
  "api.ecr.eu-west-1.amazonaws.com": ({ headers }) => {
    const isSigned = /^AWS4-HMAC-SHA256 Credential=AKIA1\/\d{8}\/eu-west-1\/ecr\/aws4_request, /.test(
      headers.get("authorization") ?? "",
    );
    const token = Buffer.from(`AWS:${canaries.awsPassword}`).toString("base64");
    return isSigned && headers.get("x-amz-security-token") === canaries.awsSession
      ? json({ authorizationData: [{ authorizationToken: token, expiresAt: 4e9 }] })
      : json({ __type: "UnrecognizedClientException", message: `no ${headers.get("x-amz-security-token")}` }, 400);
  },
  [GOOGLE]: bearerSite(GOOGLE, ({ headers, url }) => {
    const isPublic = url.searchParams.get("scope") === "repository:public/app:pull";
    return isPublic || headers.get("authorization") === basic("_token", canaries.googleToken);
  }),
  [GITHUB]: bearerSite(GITHUB, ({ headers }) => headers.get("authorization") === basic("joe", canaries.github)),
  "oauth2.googleapis.com": ({ body }) =>
    new URLSearchParams(body).get("refresh_token") === canaries.googleRefresh
      ? json({ access_token: canaries.googleToken, expires_in: 3599 })
      : json({ error: "invalid_grant", error_description: body }, 400),
  [AZURE]: (visit, request) => {
    const { body, url } = visit;
    if (url.pathname === "/oauth2/exchange") {
      return new URLSearchParams(body).get("access_token") === canaries.azureToken
        ? json({ refresh_token: canaries.acrRefresh })
        : json({}, 401);
    }
    return bearerSite(AZURE, () => new URLSearchParams(body).get("refresh_token") === canaries.acrRefresh)(
      visit,
      request,
    );
  },
  "login.microsoftonline.com": ({ body }) =>
    new URLSearchParams(body).get("client_secret") === canaries.azureSecret
      ? json({ access_token: canaries.azureToken, expires_on: "4000000000" })
      : json({ error: "invalid_client", error_description: `AADSTS7000215: ${body}` }, 401),
};

beforeAll(async () => {
  if (missing) return;
  folder = await makeFolder();
  ko = join(folder.path, "ko");
  const build = [process.execPath, "--no-env-file", join(source, ".ci", "build.ts"), "--outfile", ko];
  const { code, stderr } = await runToEnd(build, { cwd: folder.path, env: process.env });
  if (code !== 0) throw new Error(stderr);
  app = writeTree({
    "go.mod": "module example.com/app\n\ngo 1.21\n",
    "main.go": "package main\n\nfunc main() {}\n",
    ".ko.yaml": "defaultBaseImage: scratch\n",
  });
  [open, closed, internet] = await Promise.all([
    startRegistry(),
    startRegistry({ accounts: { joe: canaries.login } }),
    makeInternet(sites),
  ]);
}, PATIENCE);

afterAll(async () => {
  await internet?.[Symbol.asyncDispose]();
  await closed?.[Symbol.asyncDispose]();
  await open?.[Symbol.asyncDispose]();
  app?.[Symbol.dispose]();
  await folder?.[Symbol.asyncDispose]();
});

interface User extends Disposable {
  readonly home: Tree;
  run(
    args: readonly string[],
    options?: { readonly stdin?: string; readonly env?: Readonly<Record<string, string>> },
  ): Promise<Result>;
}

/** A user without any login, but with go's own cache. The words of each child process go into a file of the user. */
function makeUser(env: Readonly<Record<string, string>> = {}): User {
  const home = writeTree({ argv: "" });
  for (const name of ["go", "git"]) {
    const real = Bun.which(name) ?? `/nowhere/${name}`;
    const record = `printf '%s\\n' "${name} $*" >> '${home.at("argv")}'`;
    home.write({ [`bin/${name}`]: { executable: `#!/bin/sh\n${record}\nexec '${real}' "$@"\n` } });
  }
  const cache = process.env["GOCACHE"] ?? join(homedir(), ".cache", "go-build");
  return {
    home,
    run: (args, { env: more, stdin } = {}) =>
      runToEnd([ko, ...args], {
        cwd: app.path,
        env: {
          HOME: home.path,
          PATH: home.at("bin"),
          GOCACHE: cache,
          GOFLAGS: "-buildvcs=false",
          CGO_ENABLED: "0",
          KOCACHE: home.at("ko"),
          ...env,
          ...more,
        },
        ...(stdin === undefined ? {} : { stdin }),
      }),
    [Symbol.dispose]: () => home[Symbol.dispose](),
  };
}

/**
 * No secret is in an output, nor in a file of the user, but for the files that are for secrets: cache, trace and the words
 * of child processes are files.
 */
function expectNoSecret(user: User, results: readonly Result[]): void {
  const texts = results.flatMap(({ stderr, stdout }) => [stderr, stdout]);
  for (const name of readdirSync(user.home.path, { recursive: true, encoding: "utf8" })) {
    if (/^(?:\.docker\/config|secrets\/)/.test(name) || !statSync(user.home.at(name)).isFile()) continue;
    texts.push(readFileSync(user.home.at(name), "latin1"));
  }
  const forms = Object.values(canaries).flatMap((secret) => [
    secret,
    encodeURIComponent(secret),
    Buffer.from(secret).toString("base64").replace(/=+$/, ""),
    Buffer.from(`joe:${secret}`).toString("base64").replace(/=+$/, ""),
    Buffer.from(`AWS:${secret}`).toString("base64").replace(/=+$/, ""),
  ]);
  expect(forms.filter((form) => texts.some((text) => text.includes(form)))).toEqual([]);
}

describe.skipIf(missing)("ko login", () => {
  test(
    "makes the next push work, and ko logout takes it back",
    async () => {
      using user = makeUser({ KO_DOCKER_REPO: `${closed.host}/team` });
      const before = await user.run(["build", "-v", "."]);
      const login = await user.run(["login", "-v", closed.host, "-u", "joe", "--password-stdin"], {
        stdin: `${canaries.login}\n`,
      });
      const pushed = await user.run(["build", "-v", "."]);
      const logout = await user.run(["logout", "-v", closed.host]);
      const after = await user.run(["build", "-v", "--tags", "other", "."]);
      const wrong = await user.run(["login", closed.host, "-u", "joe", "-p", "wrong-canary"]);
      const refusal = await user.run(["build", "-v", "--tags", "third", "."]);
      expect([before, login, pushed, logout, after, wrong, refusal].map(({ code }) => code)).toEqual([
        1, 0, 0, 0, 1, 0, 1,
      ]);
      expect(pushed.stdout).toStartWith(`${closed.host}/team/app-`);
      const hint = `  Log in: ko login ${closed.host} -u USER --password-stdin\n`;
      const path = user.home.at(".docker/config.json");
      expect(before.stderr).toContain(
        `, without a credential: there is none for ${closed.host}, and there is no configuration file of Docker or podman\n${hint}`,
      );
      expect(after.stderr).toContain(`, without a credential: there is none for ${closed.host} in ${path}\n${hint}`);
      expect(refusal.stderr).toContain(`, with the credential from auths entry "${closed.host}" in ${path}\n${hint}`);
      expectNoSecret(user, [before, login, pushed, logout, after, refusal]);
      expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    },
    PATIENCE,
  );
});

describe.skipIf(missing)("without a login", () => {
  const aws = {
    AWS_ACCESS_KEY_ID: "AKIA1",
    AWS_SECRET_ACCESS_KEY: canaries.awsSecret,
    AWS_SESSION_TOKEN: canaries.awsSession,
  };
  const azure = { AZURE_TENANT_ID: "tenant", AZURE_CLIENT_ID: "client", AZURE_CLIENT_SECRET: canaries.azureSecret };
  const user = {
    type: "authorized_user",
    client_id: "id",
    client_secret: canaries.googleSecret,
    refresh_token: canaries.googleRefresh,
  };
  const google = { GOOGLE_APPLICATION_CREDENTIALS: "$HOME/secrets/google.json" };

  const reach = (me: User, env: Readonly<Record<string, string>>): Readonly<Record<string, string>> => {
    const filled = Object.entries(env).map(([name, value]) => [name, value.replace("$HOME", me.home.path)]);
    return { HTTPS_PROXY: internet.proxy, SSL_CERT_FILE: internet.authority, ...Object.fromEntries(filled) };
  };

  test.each<[string, string, Readonly<Record<string, string>>, readonly string[]]>([
    ["Amazon ECR", ECR, aws, [`POST https://api.ecr.eu-west-1.amazonaws.com/`]],
    ["Google's Artifact Registry", GOOGLE, google, ["POST https://oauth2.googleapis.com/token"]],
    [
      "Azure Container Registry",
      AZURE,
      azure,
      ["POST https://login.microsoftonline.com/tenant/oauth2/token", `POST https://${AZURE}/oauth2/exchange`],
    ],
    [
      "GitHub's registry",
      GITHUB,
      { GITHUB_TOKEN: canaries.github, GITHUB_ACTOR: "joe" },
      [`GET https://${GITHUB}/v2/token`],
    ],
  ])(
    "pushes to %s",
    async (_, host, env, wanted) => {
      using me = makeUser();
      me.home.write({ "secrets/google.json": JSON.stringify(user) });
      internet.visits.length = 0;
      const report = ["--explain", `--timing=${me.home.at("trace.json")}`];
      const result = await me.run(["build", "-v", ...report, "."], {
        env: { ...reach(me, env), KO_DOCKER_REPO: `${host}/team` },
      });
      expect({ code: result.code, stderr: result.code === 0 ? "" : result.stderr }).toEqual({ code: 0, stderr: "" });
      expect(readFileSync(me.home.at("trace.json"), "utf8")).toContain(host);
      expect(readFileSync(me.home.at("argv"), "utf8")).toContain("go build ");
      expect(result.stdout).toStartWith(`${host}/team/app-`);
      const asked = internet.visits.map(({ method, url }) => `${method} ${url.origin}${url.pathname}`);
      for (const name of wanted) expect(asked.filter((each) => each === name)).toHaveLength(1);
      expectNoSecret(me, [result]);
    },
    PATIENCE,
  );

  test(
    "pulls a public base without waiting for a silent metadata server",
    async () => {
      let connections = 0;
      const silent = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { open: () => void connections++, data: () => {} },
      });
      using me = makeUser();
      const base = await me.run(["build", "-B", "."], { env: { KO_DOCKER_REPO: `${open.host}/public` } });
      const env = {
        ...reach(me, { GCE_METADATA_HOST: `127.0.0.1:${silent.port}` }),
        KO_DEFAULTBASEIMAGE: `${GOOGLE}/public/app`,
      };
      const public_ = await me.run(["build", "-v", "--push=false", "."], {
        env: { ...env, KO_DOCKER_REPO: "r.example" },
      });
      expect({ codes: [base.code, public_.code], connections }).toEqual({ codes: [0, 0], connections: 0 });
      // A private base: the metadata server has half a second, and the error says that it was asked.
      const hidden = { ...env, KO_DEFAULTBASEIMAGE: `${GOOGLE}/private/app`, KO_DOCKER_REPO: "r.example" };
      const private_ = await me.run(["build", "-v", "--push=false", "."], { env: hidden });
      silent.stop(true);
      expect({ code: private_.code, connections }).toEqual({ code: 1, connections: 1 });
      expect(private_.stderr).toContain(
        `Google has none: GOOGLE_APPLICATION_CREDENTIALS is not set, ${me.home.path}/.config/gcloud/application_default_credentials.json does not exist, ` +
          `no metadata server of Google answers at 127.0.0.1:${silent.port}, gcloud is not on PATH\n` +
          `  Log in: gcloud auth print-access-token | ko login ${GOOGLE} -u oauth2accesstoken --password-stdin\n`,
      );
    },
    PATIENCE,
  );

  test.each<[string, string, Readonly<Record<string, string>>, string]>([
    [
      "Amazon ECR",
      ECR,
      { ...aws, AWS_SESSION_TOKEN: "canary-aws-session-old" },
      "without a credential: AWS gave none: POST https://api.ecr.eu-west-1.amazonaws.com/ answered 400 (UnrecognizedClientException), with the keys of AWS_ACCESS_KEY_ID; " +
        `there is none for ${ECR}, and there is no configuration file of Docker or podman\n` +
        `  Log in: aws ecr get-login-password --region eu-west-1 | ko login ${ECR} -u AWS --password-stdin\n`,
    ],
    [
      "Azure Container Registry",
      AZURE,
      { ...azure, AZURE_CLIENT_SECRET: "canary-azure-secret-old" },
      `without a credential: there is none for ${AZURE}, and there is no configuration file of Docker or podman; ` +
        "Azure gave none: POST https://login.microsoftonline.com/tenant/oauth2/token answered 401 (AADSTS7000215), with AZURE_CLIENT_SECRET for client client\n" +
        `  Log in: az acr login --name me --expose-token --query accessToken --output tsv | ko login ${AZURE} -u 00000000-0000-0000-0000-000000000000 --password-stdin\n`,
    ],
  ])(
    "says why a push to %s is refused, and what to type",
    async (_, host, env, wanted) => {
      using me = makeUser();
      const result = await me.run(["build", "-v", "."], { env: { ...reach(me, env), KO_DOCKER_REPO: `${host}/team` } });
      expect(result.code).toBe(1);
      expect(result.stderr).toContain(wanted);
      expectNoSecret(me, [result]);
    },
    PATIENCE,
  );
});
