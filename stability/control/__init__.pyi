from . import uncertainty as uncertainty
