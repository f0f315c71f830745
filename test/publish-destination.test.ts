import { describe, expect, test } from "bun:test";
import { type Compression, FAST_GZIP } from "../lib/compress.ts";
import {
  type Destination,
  type FilePlace,
  holdsOnePlatform,
  isLocal,
  listsWholeRun,
  type Place,
  planDestination,
  type PublishFlags,
  type SbomPlan,
  wantsPlainLayers,
} from "../lib/publish-destination.ts";
import { describeError, UsageError } from "../lib/errors.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";

const FLAGS: PublishFlags = {
  naming: "md5",
  tags: { names: ["latest"], only: false },
  files: [],
  imageRefs: undefined,
  also: [],
  push: undefined,
  local: false,
  insecureRegistry: false,
  compression: undefined,
  sbom: undefined,
};

/** `--tarball -` */
const TARBALL: FilePlace = { kind: "tarball", file: "-" };
const ARCHIVE: FilePlace = { kind: "oci-archive", file: "-" };
const LAYOUT: FilePlace = { kind: "layout", path: "l" };

interface Refusal {
  readonly message: string;
  readonly hint: string | undefined;
}

async function refusal(
  flags: Partial<PublishFlags>,
  options: { readonly dockerRepo: string | undefined; readonly cwd?: string },
): Promise<Refusal> {
  const work = planDestination({ ...FLAGS, ...flags }, { cwd: "/", env: {}, ...options });
  const error = await rejectionOf(work);
  if (!(error instanceof UsageError)) throw new Error("no UsageError", { cause: error });
  return { message: error.message, hint: error.hint };
}

/** Local targets take plain layers. */
const LOCAL = { compression: { kind: "none" } };

describe("planDestination()", () => {
  const plain = {
    repository: "gcr.io/me",
    naming: "md5",
    tags: { names: ["latest"], only: false },
    places: [{ kind: "registry" }],
    also: [],
    imageRefs: undefined,
    insecureHosts: [],
    compression: { kind: "gzip", level: 1 },
    warnings: [],
  };

  test("takes a repository", async () => {
    const planned: unknown = await planDestination(FLAGS, { dockerRepo: "gcr.io/me", cwd: "/", env: {} });
    expect(planned).toEqual(plain);
  });

  test.each<[string, Partial<PublishFlags>, string | undefined, Readonly<Record<string, unknown>>]>([
    ["cuts slashes at the end", {}, "gcr.io/me//", {}],
    ["takes a host alone", {}, "localhost:5000", { repository: "localhost:5000" }],
    ["takes a repository of Docker Hub", {}, "me", { repository: "me" }],
    [
      "keeps what the flags say",
      { naming: "bare", tags: { names: ["a", "b"], only: true } },
      "gcr.io/me",
      { naming: "bare", tags: { names: ["a", "b"], only: true } },
    ],
    ["pushes nothing if so told", { push: false }, "gcr.io/me", { places: [] }],
    ["needs no repository then", { push: false }, undefined, { places: [], repository: "" }],
    ["takes an empty variable for none", { push: false }, "", { places: [], repository: "" }],
    ["pushes nothing if there is only a layout", { files: [LAYOUT] }, undefined, { places: [LAYOUT], repository: "" }],
    ["needs no repository for a tarball", { files: [TARBALL] }, undefined, { places: [TARBALL], repository: "" }],
    [
      "loads into the daemon with -L, whatever the variable says",
      { local: true },
      "gcr.io/me",
      { ...LOCAL, places: [{ kind: "daemon" }], repository: "ko.local", naming: "preserve" },
    ],
    [
      "and also with --push=false",
      { local: true, push: false },
      undefined,
      { ...LOCAL, places: [{ kind: "daemon" }], repository: "ko.local", naming: "preserve" },
    ],
    [
      "lets -B name what is loaded",
      { local: true, naming: "base" },
      undefined,
      { ...LOCAL, places: [{ kind: "daemon" }], repository: "ko.local", naming: "base" },
    ],
    [
      "takes ko.local for the daemon",
      {},
      "ko.local",
      { ...LOCAL, places: [{ kind: "daemon" }], repository: "ko.local", naming: "preserve" },
    ],
    [
      "takes ko.local/me for the daemon",
      {},
      "ko.local/me/",
      { ...LOCAL, places: [{ kind: "daemon" }], repository: "ko.local/me", naming: "preserve" },
    ],
    ["takes kind.local for kind", {}, "kind.local", { ...LOCAL, places: [{ kind: "kind" }], repository: "kind.local" }],
    [
      "takes k3d.local for k3d",
      {},
      "k3d.local/me",
      { ...LOCAL, places: [{ kind: "k3d" }], repository: "k3d.local/me" },
    ],
    [
      "takes minikube.local for minikube",
      {},
      "minikube.local",
      { ...LOCAL, places: [{ kind: "minikube" }], repository: "minikube.local" },
    ],
    [
      "pushes besides files if it has where to",
      { files: [LAYOUT, TARBALL] },
      "gcr.io/me",
      { places: [LAYOUT, TARBALL, { kind: "registry" }] },
    ],
    [
      "allows plain HTTP to the repository's host only",
      { insecureRegistry: true },
      "r.example:5000/me",
      {
        repository: "r.example:5000/me",
        insecureHosts: ["r.example:5000"],
      },
    ],
    [
      "knows Docker Hub's host",
      { insecureRegistry: true },
      "me",
      {
        repository: "me",
        insecureHosts: ["index.docker.io"],
      },
    ],
    [
      "allows it to nobody without a repository",
      { insecureRegistry: true, push: false },
      undefined,
      { places: [], repository: "" },
    ],
  ])("%s", async (_, flags, dockerRepo, expected) => {
    using tree = writeTree({});
    const planned: unknown = await planDestination({ ...FLAGS, ...flags }, { dockerRepo, cwd: tree.path, env: {} });
    expect(planned).toEqual({ ...plain, ...expected });
  });

  const none: Compression = { kind: "none" };
  const zstd: Compression = { kind: "zstd" };
  const noEffect = "--compression has no effect: local daemons and clusters take plain layers";
  const oldDocker = "Docker before 23 cannot load layers compressed with zstd; any can with --compression=gzip";
  test.each<[string, Partial<PublishFlags>, string, Pick<Destination, "compression" | "warnings">]>([
    ["as asked for", { compression: zstd }, "gcr.io/me", { compression: zstd, warnings: [] }],
    ["never for a daemon", { local: true, compression: zstd }, "", { compression: none, warnings: [noEffect] }],
    ["never for nodes", { compression: FAST_GZIP }, "kind.local", { compression: none, warnings: [noEffect] }],
    ["never for a daemon, as asked for", { local: true, compression: none }, "", { compression: none, warnings: [] }],
    ["for files", { files: [TARBALL], compression: FAST_GZIP }, "", { compression: FAST_GZIP, warnings: [] }],
    [
      "for files that docker reads",
      { files: [TARBALL], compression: zstd },
      "",
      { compression: zstd, warnings: [oldDocker] },
    ],
    ["for other files", { files: [ARCHIVE], compression: zstd }, "", { compression: zstd, warnings: [] }],
    [
      "for files beside a daemon",
      { local: true, files: [LAYOUT], compression: zstd },
      "",
      { compression: zstd, warnings: [oldDocker] },
    ],
    [
      "for files beside nodes",
      { files: [LAYOUT], compression: zstd },
      "kind.local",
      { compression: zstd, warnings: [] },
    ],
  ])("compresses layers %s", async (_, flags, dockerRepo, expected) => {
    const { compression, warnings } = await planDestination({ ...FLAGS, ...flags }, { dockerRepo, cwd: "/", env: {} });
    expect({ compression, warnings }).toEqual(expected);
  });

  const unset = {
    message: "Cannot publish: KO_DOCKER_REPO is not set, so there is no registry to push to",
    hint:
      "export KO_DOCKER_REPO=registry.example.com/me   to push to a registry\n" +
      "ko … -L                                         to load into the local Docker or podman daemon\n" +
      "ko … --oci-layout-path DIR                      to write an OCI layout, without a registry",
  };
  test.each<[string, Partial<PublishFlags>, string | undefined]>([
    ["no variable", {}, undefined],
    ["an empty one", {}, ""],
    ["slashes alone", {}, "//"],
    ["--push beside a layout", { files: [LAYOUT], push: true }, undefined],
  ])("asks for a repository: %s", async (_, flags, dockerRepo) => {
    expect(await refusal(flags, { dockerRepo })).toEqual(unset);
  });

  const characters = `may hold lower-case letters, digits, ".", "_", "-" and "/"`;
  test.each<[string, string, string | undefined]>([
    ["https://gcr.io/me", 'it is a URL, leave out "https://"', "export KO_DOCKER_REPO=gcr.io/me"],
    ["HTTP://localhost:5000", 'it is a URL, leave out "HTTP://"', "export KO_DOCKER_REPO=localhost:5000"],
    ["gcr.io/Me", '"Me" has an upper-case letter, repository names are lower case', undefined],
    ["gcr.io/me:v1", `"me:v1" ${characters}`, undefined],
    ["gcr.io//me", `"/me" ${characters}`, undefined],
    ["gcr.io/me there", `"me there" ${characters}`, undefined],
    [" gcr.io/me", '" gcr.io" is not a host name with an optional port', undefined],
    ["gcr.io:port/me", '"gcr.io:port" is not a host name with an optional port', undefined],
    ["localhost:", '"localhost:" is not a host name with an optional port', undefined],
    ["./here", '"." is not a host name with an optional port', undefined],
    ["ko://example.com", 'it is a URL, leave out "ko://"', "export KO_DOCKER_REPO=example.com"],
    [`gcr.io/${"p".repeat(256)}`, "the repository name has 256 characters, the limit is 255", undefined],
  ])("refuses KO_DOCKER_REPO=%s", async (dockerRepo, why, hint) => {
    expect(await refusal({}, { dockerRepo })).toEqual({
      message: `Cannot use KO_DOCKER_REPO="${dockerRepo.replace(/\/+$/, "")}": ${why}`,
      hint,
    });
  });

  test.each(["ko.local.example/me", "ko.locals/me", "me/ko.local", "ko.local:5000/me"])(
    "does not take %s for the daemon",
    async (dockerRepo) => {
      const planned = await planDestination(FLAGS, { dockerRepo, cwd: "/", env: {} });
      expect([planned.repository, planned.places]).toEqual([dockerRepo, [{ kind: "registry" }]]);
    },
  );

  test.each([
    "user:CANARY@gcr.io/me",
    "https://user:CANARY@gcr.io/me",
    "CANARY@gcr.io",
    "user:CAN@NARY@gcr.io/me",
    "@CANARY",
    "gcr.io/me@sha256:CANARY",
  ])("does not show what may be a password: %s", async (dockerRepo) => {
    const error = await rejectionOf(planDestination(FLAGS, { dockerRepo, cwd: "/", env: {} }));
    expect(describeError(error)).toBe(
      'Error: Cannot use KO_DOCKER_REPO: it holds an "@", a name without user, password or digest is wanted\n' +
        "  Put credentials into the Docker config file: ko login HOST -u USER --password-stdin",
    );
  });

  test("checks a repository that is not pushed to, too: it names the image", async () => {
    expect((await refusal({ push: false }, { dockerRepo: "gcr.io/Me" })).message).toStartWith(
      "Cannot use KO_DOCKER_REPO",
    );
  });
});

describe("planDestination() and --also-push", () => {
  test("has the further repositories, in their order, and their hosts", async () => {
    const also = ["ghcr.io/me/", "localhost:5000"];
    const planned = await planDestination(
      { ...FLAGS, also, insecureRegistry: true },
      { dockerRepo: "gcr.io/me", cwd: "/", env: {} },
    );
    expect([planned.also, planned.insecureHosts]).toEqual([
      ["ghcr.io/me", "localhost:5000"],
      ["gcr.io", "ghcr.io", "localhost:5000"],
    ]);
  });

  test.each<[string, Partial<PublishFlags>, string | undefined, string]>([
    ["no repository", { also: ["/"] }, "gcr.io/me", "Cannot use --also-push: it is empty, wanted a repository"],
    [
      "a URL",
      { also: ["https://a.io/b"] },
      "gcr.io/me",
      'Cannot use --also-push="https://a.io/b": it is a URL, leave out "https://"',
    ],
    [
      "a password",
      { also: ["u:s3cret@a.io/b"] },
      "gcr.io/me",
      'Cannot use --also-push: it holds an "@", a name without user, password or digest is wanted',
    ],
    ["the daemon", { also: ["ko.local"] }, "gcr.io/me", 'Cannot use --also-push "ko.local": ko.local is no registry'],
    [
      "the same",
      { also: ["gcr.io/me/"] },
      "gcr.io/me",
      'Cannot use --also-push "gcr.io/me/": KO_DOCKER_REPO is the same',
    ],
    [
      "one twice",
      { also: ["a.io/b", "a.io/b"] },
      "gcr.io/me",
      'Cannot use --also-push "a.io/b": another --also-push is the same',
    ],
    [
      "-L",
      { also: ["a.io/b"], local: true },
      "gcr.io/me",
      'Cannot use --also-push "a.io/b": nothing is pushed to a registry beside it',
    ],
    [
      "--push=false",
      { also: ["a.io/b"], push: false },
      "gcr.io/me",
      'Cannot use --also-push "a.io/b": nothing is pushed to a registry beside it',
    ],
    [
      "files alone",
      { also: ["a.io/b"], files: [LAYOUT] },
      undefined,
      'Cannot use --also-push "a.io/b": nothing is pushed to a registry beside it',
    ],
  ])("refuses %s", async (_, flags, dockerRepo, message) => {
    expect((await refusal(flags, { dockerRepo })).message).toBe(message);
  });
});

describe("planDestination() and files", () => {
  const dockerRepo = "gcr.io/me";

  test("takes files that can be written, and makes --image-refs absolute", async () => {
    using tree = writeTree({ "old.txt": "old", "link.txt": { link: "old.txt" }, "dir/x": "" });
    for (const imageRefs of ["new.txt", "old.txt", "link.txt", "dir/new.txt", tree.at("abs.txt")]) {
      const planned = await planDestination({ ...FLAGS, imageRefs }, { dockerRepo, cwd: tree.path, env: {} });
      expect(planned.imageRefs).toBe(imageRefs.startsWith("/") ? imageRefs : tree.at(imageRefs));
    }
  });

  test("takes a device", async () => {
    const planned = await planDestination({ ...FLAGS, imageRefs: "/dev/null" }, { dockerRepo, cwd: "/", env: {} });
    expect(planned.imageRefs).toBe("/dev/null");
  });

  test.each([
    ["dir", "it is a folder"],
    ["missing/refs.txt", "the folder $DIR/missing does not exist"],
    ["file/refs.txt", "the folder $DIR/file does not exist"],
  ])("refuses --image-refs %s", async (imageRefs, why) => {
    using tree = writeTree({ dir: null, file: "" });
    const { message } = await refusal({ imageRefs }, { dockerRepo, cwd: tree.path });
    expect(message.replaceAll(tree.path, "$DIR")).toBe(`Cannot write --image-refs "$DIR/${imageRefs}": ${why}`);
  });

  test.each(["layout", "new/deep/layout", "."])("takes --oci-layout-path %s", async (layoutPath) => {
    using tree = writeTree({ layout: null });
    const files: readonly FilePlace[] = [{ kind: "layout", path: layoutPath }];
    const planned = await planDestination({ ...FLAGS, files }, { dockerRepo, cwd: tree.path, env: {} });
    expect(planned.places).toEqual([...files, { kind: "registry" }]);
  });

  test.each(["file", "file/below", "file/far/below"])("refuses --oci-layout-path %s", async (layoutPath) => {
    using tree = writeTree({ file: "" });
    const { message } = await refusal(
      { files: [{ kind: "layout", path: layoutPath }] },
      { dockerRepo, cwd: tree.path },
    );
    expect(message.replaceAll(tree.path, "$DIR")).toBe(
      `Cannot write --oci-layout-path "$DIR/${layoutPath}": $DIR/file is no folder`,
    );
  });

  // Access rights bind everybody but root.
  test.skipIf(process.getuid?.() === 0)("refuses folders that cannot be written to", async () => {
    const path = "/usr/ko-test";
    for (const flags of [{ imageRefs: path }, { files: [{ kind: "layout", path }] }] as const) {
      const { message } = await refusal(flags, { dockerRepo });
      expect(message).toEndWith(`"/usr/ko-test": the folder /usr cannot be written to`);
    }
  });
});

describe("planDestination() and SBOMs", () => {
  const BY_DEFAULT = { dir: undefined, isExplicit: false };
  const WANTED = { dir: undefined, isExplicit: true };
  const TO_DIR = { dir: "out", isExplicit: false };
  const files = [LAYOUT, ARCHIVE];
  test.each<[string, Partial<PublishFlags>, SbomPlan | undefined]>([
    ["a push", { sbom: BY_DEFAULT }, { registry: true, dir: undefined, layout: undefined }],
    ["a push without", { sbom: undefined }, undefined],
    ["a push and files", { files, sbom: BY_DEFAULT }, { registry: true, dir: undefined, layout: undefined }],
    ["a push and files, wanted", { files, sbom: WANTED }, { registry: true, dir: undefined, layout: "l" }],
    ["files", { files, push: false, sbom: BY_DEFAULT }, undefined],
    ["files, wanted", { files, push: false, sbom: WANTED }, { registry: false, dir: undefined, layout: "l" }],
    ["a daemon, wanted", { local: true, sbom: WANTED }, undefined],
    ["a daemon and a folder", { local: true, sbom: TO_DIR }, { registry: false, dir: "out", layout: undefined }],
    ["nothing and a folder", { push: false, sbom: TO_DIR }, { registry: false, dir: "out", layout: undefined }],
  ])("%s", async (_name, flags, expected) => {
    using tree = writeTree({});
    const planned = await planDestination(
      { ...FLAGS, ...flags },
      { dockerRepo: "r.example/me", cwd: tree.path, env: {} },
    );
    expect(planned.sbom).toEqual(expected);
  });
});

describe("places", () => {
  const NOTHING = { isLocal: false, holdsOnePlatform: false, listsWholeRun: false };
  test.each<[Place, Partial<typeof NOTHING>]>([
    [{ kind: "registry" }, {}],
    [{ kind: "daemon" }, { isLocal: true, holdsOnePlatform: true }],
    [{ kind: "kind" }, { isLocal: true, holdsOnePlatform: true }],
    [{ kind: "k3d" }, { isLocal: true, holdsOnePlatform: true }],
    [{ kind: "minikube" }, { isLocal: true, holdsOnePlatform: true }],
    [LAYOUT, {}],
    [TARBALL, { holdsOnePlatform: true, listsWholeRun: true }],
    [ARCHIVE, { listsWholeRun: true }],
  ])("%j", (place, expected) => {
    const got = {
      isLocal: isLocal(place),
      holdsOnePlatform: holdsOnePlatform(place),
      listsWholeRun: listsWholeRun(place),
    };
    expect(got).toEqual({ ...NOTHING, ...expected });
  });

  test.each<[readonly Place[], boolean]>([
    [[], false],
    [[{ kind: "daemon" }], true],
    [[LAYOUT, { kind: "daemon" }], false],
    [[{ kind: "registry" }], false],
  ])("%j want plain layers: %p", (places, expected) => {
    expect(wantsPlainLayers(places)).toBe(expected);
  });
});
