/** Which Pods belong to the objects that a round applied. */
import { fieldAt, listAt, textAt } from "./json.ts";
import { type Applied, appliedOf, nameAfter, readObjects, resourceOf } from "./rollout-objects.ts";
import { selectLabels, selectorOf } from "./rollout-revision.ts";

/** An object that has Pods. */
export interface FollowTarget {
  /** `deployment/web` */
  readonly resource: string;
  /** `web` */
  readonly name: string;
  /** @default that of the context */
  readonly namespace: string | undefined;
  /** Of the API, for a list of its Pods. */
  readonly query: Readonly<Record<string, string>>;
  /** The name of the Job that a Pod is of must match. @default Pods of the query all belong to the object */
  readonly job?: RegExp;
}

/** The label of the Pods of a Job: its name. */
const JOB_LABEL = "job-name";

/**
 * Finds the objects of YAML that have Pods.
 *
 * @param text the YAML that kubectl got
 * @param said the output of kubectl, for names that the server made
 */
export async function findTargets(text: string, said: string): Promise<readonly FollowTarget[]> {
  const targets = (await readObjects(text)).map((object) => targetOf(object, nameAfter(appliedOf(object), said)));
  return targets.filter((target) => target !== undefined);
}

function targetOf(object: unknown, applied: Applied): FollowTarget | undefined {
  const query = queryOf(object, applied);
  if (applied.name === "" || query === undefined) return undefined;
  const isCron = `${applied.apiVersion} ${applied.kind}` === "batch/v1 CronJob";
  return {
    resource: resourceOf(applied),
    name: applied.name,
    namespace: applied.namespace,
    query,
    ...(isCron ? { job: new RegExp(`^${RegExp.escape(applied.name)}-\\d+$`) } : {}),
  };
}

function queryOf(object: unknown, { apiVersion, kind, name }: Applied): FollowTarget["query"] | undefined {
  switch (`${apiVersion} ${kind}`) {
    case "v1 Pod":
      return { fieldSelector: `metadata.name=${name}` };
    case "batch/v1 Job":
      return { labelSelector: `${JOB_LABEL}=${name}` };
    case "batch/v1 CronJob":
      return { labelSelector: JOB_LABEL };
    case "v1 ReplicationController":
      return { labelSelector: selectLabels(fieldAt(object, "spec", "selector")).join(",") };
  }
  if (apiVersion.startsWith("serving.knative.dev/") && kind === "Service") {
    return { labelSelector: `serving.knative.dev/service=${name}` };
  }
  // Others also select Pods, such as a PodDisruptionBudget: they do not make them.
  const makesPods = listAt(object, "spec", "template", "spec", "containers").length > 0;
  const selector = makesPods ? selectorOf(object) : undefined;
  return selector === undefined ? undefined : { labelSelector: selector };
}

/** Whether a Pod of the query belongs to the object. */
export function isOf(target: FollowTarget, pod: unknown): boolean {
  return target.job === undefined || target.job.test(textAt(pod, "metadata", "labels", JOB_LABEL));
}
