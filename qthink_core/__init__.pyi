from qthink_core.inference.reasoner import LatentReasoner as LatentReasoner
