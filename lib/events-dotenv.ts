/**
 * The file of `--dotenv`: the images of a run as variables of later jobs, in the form that GitLab reads.
 *
 * It allows no quotes, blanks, empty lines and comments, and a file of 5 KB:
 * https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv
 */
import type { ProgramRecord } from "./events-metadata.ts";

/** What GitLab accepts unless its administrator raised it. Bytes. */
const MAX_BYTES = 5 * 1024;

/** Returns the image and the digest of the first program, and the images of all, separated by commas. */
export function formatDotenv(programs: readonly Pick<ProgramRecord, "result">[]): string {
  const results = programs.flatMap(({ result }) => result ?? []);
  const [first] = results;
  const variables = {
    KO_IMAGE: first?.reference ?? "",
    KO_DIGEST: first?.descriptor.digest ?? "",
    KO_IMAGES: results.map(({ reference }) => reference).join(","),
  };
  return Object.entries(variables)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

/** Returns why GitLab may refuse the file; undefined if it does not. */
export function whyTooLarge(text: string): string | undefined {
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_BYTES) return undefined;
  return `GitLab refuses a dotenv file of ${bytes} bytes: ${MAX_BYTES} are possible, unless its administrator raised the limit`;
}
